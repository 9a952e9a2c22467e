//! Which protocol a client speaks, by its first bytes. It reads nothing itself.

/// RFC 9113 3.4: what a client of HTTP/2 that knows of it beforehand begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// What a client speaks that begins so; `None` while it can be both.
pub(super) fn by_its_first(bytes: &[u8]) -> Option<Protocol> {
    if bytes.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    (!PREFACE.starts_with(bytes)).then_some(Protocol::Http1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_preface_is_http2_and_anything_else_http1() {
        assert_eq!(by_its_first(PREFACE), Some(Protocol::Http2));
        for len in 0..PREFACE.len() {
            assert_eq!(by_its_first(&PREFACE[..len]), None);
        }
        for other in [&b"GET"[..], b"POST /", b"PRI / HTTP/1.1", b"\r\nGET"] {
            assert_eq!(by_its_first(other), Some(Protocol::Http1), "{other:?}");
        }
    }
}

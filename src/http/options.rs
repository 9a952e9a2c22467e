//! What a service may choose.

/// How HTTP is served. The default suits most services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    pub(super) keep: Keep,
    pub(super) http2: bool,
}

/// Which connections PID 1 holds, too, so that they survive a crash of the service. An upgrade and a
/// restart they survive without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// None: after a crash clients connect anew.
    None,
    /// Those that have come to rest after a response, as long as there are no more than so many.
    Idle(usize),
    /// Those, and new ones from the moment they are accepted, as long as there are no more than so many.
    All(usize),
}

impl Http {
    /// PID 1 holds no connections before the service ends; HTTP/2 is served to clients that know of it.
    pub fn new() -> Self {
        Self { keep: Keep::None, http2: true }
    }

    /// Which connections survive a crash; [`Keep::None`].
    #[must_use]
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// Whether a client that begins with the preface of HTTP/2 is served HTTP/2; yes. Such a connection
    /// cannot move.
    #[must_use]
    pub fn http2(self, http2: bool) -> Self {
        Self { http2, ..self }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

//! HTTP/2 frame by frame, as a client sees it that is asked to leave: RFC 9113 6.8.

use super::*;
use std::collections::BTreeMap;

/// Types of frames, RFC 9113 6; and flags of theirs.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a server says that takes whatever is on its way: the highest number that a stream can have.
const ALL: u32 = (1 << 31) - 1;

/// One frame.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A client that writes its own frames.
struct Frames(Client);

impl Frames {
    async fn connect(process: &Process) -> Self {
        let mut this = Self(process.connect());
        this.0.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        this.send(SETTINGS, 0, 0, b"").await;
        this
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head, payload].concat()).await;
    }

    /// GET of this path, RFC 7541: method, scheme and the names of path and authority have numbers.
    async fn get(&mut self, stream: u32, path: &str) {
        let literal = |name: u8, value: &str| [&[0x40 | name, value.len() as u8], value.as_bytes()].concat();
        let fields = [vec![0x82, 0x86], literal(1, "test"), literal(4, path)].concat();
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &fields).await;
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        soon(self.0.0.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(self.0.0.read_exact(&mut payload)).await.unwrap();
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this kind that acknowledges nothing.
    async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("no end yet");
            if frame.kind == kind && (kind != PING || frame.flags & ACK == 0) {
                return frame;
            }
        }
    }

    /// Up to which stream requests are answered, by the next GOAWAY, which is no complaint.
    async fn goaway(&mut self) -> u32 {
        let Frame { payload, .. } = self.next_of(GOAWAY).await;
        let (last, error) = payload.split_at(4);
        assert_eq!(error[..4], [0; 4], "NO_ERROR");
        u32::from_be_bytes(last.try_into().unwrap())
    }
}

/// Waits until so much is in flight: a conversation, and each of its streams.
async fn until_in_flight(process: &Process, count: usize) {
    soon(async {
        while process.drain.in_flight() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_on_its_way_when_a_client_of_http2_is_asked_to_leave_is_answered() {
    let mut old = Process::new("old");
    let mut client = Frames::connect(&old).await;
    client.get(1, "/wait").await;
    until_in_flight(&old, 2).await;
    old.retire();
    assert_eq!(client.goaway().await, ALL, "at first it takes everything");
    client.get(3, "/late").await;
    let ping = client.next_of(PING).await;
    client.send(PING, ACK, 0, &ping.payload).await;
    assert_eq!(client.goaway().await, 3, "a round trip later it knows what came");
    old.go.notify_one();
    let mut answers: BTreeMap<u32, String> = BTreeMap::new();
    while let Some(frame) = client.next().await {
        if frame.kind == DATA {
            *answers.entry(frame.stream).or_default() += str::from_utf8(&frame.payload).unwrap();
        }
    }
    let wanted = [(1, "old waited"), (3, "old /late")].map(|(stream, answer)| (stream, answer.to_owned()));
    assert_eq!(answers, BTreeMap::from(wanted));
    old.is_left().await;
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_deadline() {
    let mut old = Process::new("old");
    let mut client = Frames::connect(&old).await;
    client.get(1, "/wait").await;
    until_in_flight(&old, 2).await;
    old.retire();
    client.goaway().await;
    let ping = client.next_of(PING).await;
    client.send(PING, ACK, 0, &ping.payload).await;
    assert_eq!(client.goaway().await, 1);
    assert_eq!(old.drain.in_flight(), 2, "it may take until then");
    old.drain.cut();
    assert!(client.next().await.is_none());
    until_in_flight(&old, 0).await;
}

//! What moves, when, and with what.

use super::*;

#[tokio::test]
async fn a_connection_between_two_requests_moves_and_its_client_sees_nothing() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    assert_eq!(client.get("/a").await, "old /a");
    assert_eq!(client.get("/b").await, "old /b");
    old.retire();
    old.give(&new).await;
    assert_eq!(client.get("/c").await, "new /c");
    old.is_left().await;
    assert_eq!(client.get("/d").await, "new /d");
}

#[tokio::test]
async fn a_connection_that_has_not_said_anything_moves() {
    for http2 in [true, false] {
        let (mut old, new) = (Process::new("old"), Process::new("new"));
        old.http = old.http.http2(http2);
        let mut client = old.connect();
        tokio::task::yield_now().await;
        old.retire();
        old.give(&new).await;
        assert_eq!(client.get("/").await, "new /");
        old.is_left().await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_its_connection_moves() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(!old.has_resting().await);
    old.retire();
    assert!(!old.has_resting().await);
    old.go.notify_one();
    let (head, body) = client.response().await;
    assert_eq!(body, "old waited");
    assert!(!head.contains("close"), "{head}");
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
    old.is_left().await;
}

#[tokio::test]
async fn what_was_read_ahead_is_answered_where_it_was_read_and_the_rest_of_it_moves() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    let whole = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send([&whole("/1"), &whole("/2"), &whole("/3")[..20]].concat()).await;
    assert_eq!(client.response().await.1, "old /1");
    assert_eq!(client.response().await.1, "old /2");
    old.retire();
    let (socket, bytes) = old.take().await;
    assert_eq!(luggage(&bytes).read, whole("/3").as_bytes()[..20]);
    new.serve(socket, Origin::Moved, &bytes);
    client.send(&whole("/3")[20..]).await;
    assert_eq!(client.response().await.1, "new /3");
    assert_eq!(client.get("/4").await, "new /4");
    old.is_left().await;
}

#[tokio::test]
async fn pipelined_requests_behind_a_slow_one_are_answered_in_their_order() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\nGET /2 HTTP/1.1\r\nHost: te").await;
    assert!(!old.has_resting().await);
    old.retire();
    old.go.notify_one();
    assert_eq!(client.response().await.1, "old waited");
    old.give(&new).await;
    client.send("st\r\n\r\n").await;
    assert_eq!(client.response().await.1, "new /2");
}

#[tokio::test]
async fn the_head_of_a_request_may_come_byte_by_byte_to_a_process_each() {
    let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let mut process = Process::new("first");
    let mut client = process.connect();
    let request = "PUT /slow HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nX-Long: value\r\n\r\n";
    for (number, byte) in request.bytes().enumerate() {
        let next = Process::new(names[number % 10]);
        process.give_now(&next).await;
        client.send([byte]).await;
        process = next;
    }
    assert_eq!(client.response().await.1, format!("{} /slow", process.name));
    assert_eq!(client.get("/again").await, format!("{} /again", process.name));
}

#[tokio::test]
async fn a_head_that_fits_into_no_luggage_is_answered_where_it_began() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send(format!("GET /long HTTP/1.1\r\nX-Long: {}", "x".repeat(5000))).await;
    assert!(!old.has_resting().await);
    old.retire();
    client.send("\r\n\r\n").await;
    assert_eq!(client.response().await.1, "old /long");
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn what_came_along_of_a_head_does_not_go_on_when_it_was_answered() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    // From a process whose connections have more state.
    let head = format!("GET /long HTTP/1.1\r\nX-Long: {}", "x".repeat(5000));
    old.serve(ours.into(), Origin::Moved, &super::super::luggage::pack(false, b"", head.as_bytes()));
    let mut client = Client(UnixStream::from_std(theirs).unwrap());
    client.send("\r\n\r\n").await;
    assert_eq!(client.response().await.1, "old /long");
    old.retire();
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn a_body_is_read_to_its_end_where_it_began() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client
        .send("POST /read HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    assert!(!old.has_resting().await);
    old.retire();
    assert!(!old.has_resting().await);
    client.send("5\r\nworld\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.1, "old read 10");
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn a_connection_whose_body_is_not_read_yet_does_not_rest_although_it_was_answered() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("POST /later HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello").await;
    assert_eq!(client.response().await.1, "old reads later");
    let mut body = soon(old.later.recv()).await.unwrap();
    assert_eq!(soon(next_frame(&mut body)).await.unwrap(), "hello");
    old.retire();
    assert!(!old.has_resting().await);
    client.send("GET /").await;
    assert_eq!(soon(next_frame(&mut body)).await.unwrap(), "GET /");
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn a_response_that_is_not_out_yet_keeps_its_connection() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("GET /zeros HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(!old.has_resting().await);
    old.retire();
    assert!(!old.has_resting().await);
    assert_eq!(client.response().await.1.len(), 4 << 20);
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn a_request_that_ends_while_its_answer_waits_to_be_sent_keeps_its_connection() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("POST /later-zeros HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n").await;
    let mut body = soon(old.later.recv()).await.unwrap();
    // More than the kernel takes, and less than hyper does.
    assert!(!old.has_resting().await);
    client.send("hello").await;
    assert_eq!(soon(next_frame(&mut body)).await.unwrap(), "hello");
    old.retire();
    assert!(!old.has_resting().await);
    assert_eq!(client.response().await.1.len(), 400_000);
    old.give(&new).await;
    assert_eq!(client.get("/").await, "new /");
}

#[tokio::test]
async fn a_client_that_waits_to_continue_is_told_to_where_its_request_began() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    client.send("POST /read HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-contin").await;
    old.retire();
    old.give(&new).await;
    client.send("ue\r\n\r\n").await;
    assert!(client.response().await.0.starts_with("http/1.1 100"));
    client.send("hello").await;
    assert_eq!(client.response().await.1, "new read 5");
}

#[tokio::test]
async fn what_was_attached_goes_along() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    assert_eq!(client.get("/attached").await, "old has ");
    assert_eq!(client.get("/attach/somebody").await, "old attached");
    old.retire();
    old.give(&new).await;
    assert_eq!(client.get("/attached").await, "new has somebody");
    let refused = client.get(&format!("/attach/{}", "x".repeat(5000))).await;
    assert!(refused.contains("state_bytes"), "{refused}");
    assert_eq!(client.get("/attached").await, "new has somebody");
}

#[tokio::test]
async fn a_connection_that_is_engaged_while_it_is_on_offer_is_served_here() {
    let mut old = Process::new("old");
    let mut client = old.connect();
    assert_eq!(client.get("/1").await, "old /1");
    old.giver.call();
    let (batch, slots) = soon(old.giver.next_offers()).await.into_parts();
    assert_eq!(client.get("/2").await, "old /2");
    assert!(!slots[0].give(batch), "it was withdrawn");
    assert_eq!(client.get("/3").await, "old /3");
}

#[tokio::test]
async fn what_comes_to_a_process_that_serves_no_longer_is_left_for_the_one_that_does() {
    let (mut old, new) = (Process::new("old"), Process::new("new"));
    let mut client = old.connect();
    assert_eq!(client.get("/1").await, "old /1");
    old.retire();
    let (batch, slots) = soon(old.giver.next_offers()).await.into_parts();
    client.send("GET /2 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let socket = slots[0].as_fd().try_clone_to_owned().unwrap();
    assert!(slots[0].give(batch), "nobody can withdraw it");
    new.serve(socket, Origin::Moved, b"");
    assert_eq!(client.response().await.1, "new /2");
}

#[tokio::test]
async fn what_was_left_for_another_process_is_answered_when_that_does_not_take_it() {
    for link_is_lost in [false, true] {
        let mut old = Process::new("old");
        let mut client = old.connect();
        assert_eq!(client.get("/1").await, "old /1");
        old.retire();
        let (batch, slots) = soon(old.giver.next_offers()).await.into_parts();
        client.send("GET /2 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        match link_is_lost {
            true => old.giver.take_back(),
            false => slots.iter().for_each(|slot| slot.back(batch)),
        }
        let (head, body) = client.response().await;
        assert!(body == "old /2" && head.contains("connection: close"), "{head}");
    }
}

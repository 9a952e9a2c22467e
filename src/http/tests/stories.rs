//! What no example shows: any stream of requests, cut anywhere, over any number of moves.

use super::*;
use proptest::prelude::*;

/// A request of a client, and what the answer to it is behind the name of who answers.
fn request() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        (0..1000u32).prop_map(|number| {
            (format!("GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n"), format!("/{number}"))
        }),
        (0..40usize).prop_map(|size| {
            let body = "x".repeat(size);
            (format!("POST /read HTTP/1.1\r\nContent-Length: {size}\r\n\r\n{body}"), format!("read {size}"))
        }),
        prop::collection::vec(1..20usize, 0..4).prop_map(|chunks| {
            let body: String =
                chunks.iter().map(|size| format!("{size:x}\r\n{}\r\n", "y".repeat(*size))).collect();
            let head = "PUT /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            (format!("{head}{body}0\r\n\r\n"), format!("read {}", chunks.iter().sum::<usize>()))
        }),
        // A body that nobody wants, but for the end of it.
        Just(("DELETE /0 HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(), "/0".to_owned())),
    ]
}

/// Sends `stream` in pieces that end at `cuts`, and moves the connection behind each piece if it rests.
async fn tell(stream: &str, cuts: &[usize], answers: &[String]) -> usize {
    let names = ["one", "two", "three", "four"];
    let (mut processes, mut moves) = (vec![Process::new(names[0])], 0);
    let mut client = processes[0].connect();
    let mut begin = 0;
    for end in cuts.iter().map(|cut| cut % stream.len()).chain([stream.len()]) {
        if end > begin {
            client.send(&stream[begin..end]).await;
            begin = end;
        }
        let last = processes.len() - 1;
        if processes[last].has_resting().await {
            let next = Process::new(names[processes.len() % names.len()]);
            processes[last].give_now(&next).await;
            processes.push(next);
            moves += 1;
        }
    }
    for answer in answers {
        let body = client.response().await.1;
        let (name, rest) = body.split_once(' ').unwrap();
        assert_eq!((names.contains(&name), rest), (true, &**answer));
    }
    moves
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_is_answered_once_and_in_its_place_wherever_its_connection_moves(
        requests in prop::collection::vec(request(), 1..6),
        mut cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let (stream, answers): (String, Vec<String>) = requests.into_iter().unzip();
        cuts.iter_mut().for_each(|cut| *cut %= stream.len());
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let moves = runtime.block_on(tell(&stream, &cuts, &answers));
        // At least where it ends: between two requests.
        prop_assert!(moves > 0, "it never moved");
    }
}

//! What the messages must hold, whatever comes in.

use super::*;
use crate::upgrade::failure::Reason;
use proptest::prelude::*;

fn failure() -> impl Strategy<Value = Failure> {
    (prop::sample::select(Reason::ALL), 0..200i32, ".{0,40}").prop_map(|(reason, errno, detail)| Failure {
        reason,
        errno,
        detail,
    })
}

fn draining() -> impl Strategy<Value = Draining> {
    (1..i32::MAX, any::<u64>(), any::<u64>()).prop_map(|(pid, in_flight, left_ms)| Draining {
        pid,
        in_flight,
        left_ms,
    })
}

fn byte_lists() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..9)
}

fn there_and_back<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = message.encode();
    assert_eq!(M::decode(&bytes).as_ref(), Ok(message));
    for end in 0..bytes.len() {
        // `Yours` may end behind any of those who drain, `Withdrawn` behind any batch; all else must notice.
        assert!(M::decode(&bytes[..end]).is_err() || [2, 7].contains(&bytes[0]), "cut at {end}");
    }
    assert!(M::decode(&[&bytes[..], b"x"].concat()).is_err(), "a byte too many");
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(version: u16, pid in 1..i32::MAX, failure in failure()) {
        there_and_back(&Request::Upgrade { version, main: pid });
        there_and_back(&Request::Renew { version, main: pid });
        there_and_back(&Request::Standing { version });
        there_and_back(&Request::Spawned { pid });
        there_and_back(&Request::Failed(failure));
        there_and_back(&Request::NotExecuted { errno: pid });
    }

    #[test]
    fn a_successor_can_write_its_number_into_a_message_that_is_there(number in 1..i32::MAX) {
        let bytes = u64::from(number.unsigned_abs()).to_le_bytes();
        let written = |mut message: Vec<u8>| {
            *message.last_chunk_mut().unwrap() = bytes;
            Request::decode(&message)
        };
        prop_assert_eq!(written(Request::Spawned { pid: 0 }.encode()), Ok(Request::Spawned { pid: number }));
        let not_executed = written(Request::NotExecuted { errno: 0 }.encode());
        prop_assert_eq!(not_executed, Ok(Request::NotExecuted { errno: number }));
    }

    #[test]
    fn answers_come_back_as_they_went(
        argv in byte_lists(), environment in byte_lists(), failure in failure(),
        path in prop::collection::vec(any::<u8>(), 0..20), names in prop::collection::vec(".{0,9}", 0..9),
    ) {
        there_and_back(&Answer::Grant(Grant { path, argv, environment, names }));
        there_and_back(&Answer::Descriptors);
        there_and_back(&Answer::Begun);
        there_and_back(&Answer::Switched { pid: 7 });
        there_and_back(&Answer::Failed(failure));
    }

    #[test]
    fn how_a_service_stands_comes_back_as_it_went(
        generation: u64, draining in prop::collection::vec(draining(), 0..5), detail in ".{0,40}", last in 0..3,
        under_way: bool, is_runner: bool,
    ) {
        use crate::fdstore::LastUpgrade;
        let last_upgrade = match last {
            0 => None,
            1 => Some(LastUpgrade::Switched { from: 1, to: 2, at_ms: generation }),
            _ => Some(LastUpgrade::Failed { pid: 1, reason: 22, errno: 5, detail, at_ms: generation }),
        };
        let standing = Standing::new(generation, 7);
        there_and_back(&Answer::Standing(Standing { under_way, is_runner, draining, last_upgrade, ..standing }));
    }

    #[test]
    fn the_link_comes_back_as_it_went(
        generation: u64, list in prop::collection::vec(draining(), 0..5), one in draining(), detail in ".{0,40}",
        withdrawn in 0..9usize,
    ) {
        there_and_back(&Report::Hello { version: VERSION });
        there_and_back(&Report::Ready { takes: None });
        there_and_back(&Report::Taken { batch: generation });
        there_and_back(&Report::Declined { batch: generation });
        there_and_back(&Report::Failed { errno: 5, detail: detail.clone() });
        there_and_back(&Report::Ready { takes: Some(7) });
        there_and_back(&Order::Abort);
        there_and_back(&Order::Yours { generation, draining: list });
        there_and_back(&Order::Draining(one));
        there_and_back(&Order::Offer { batch: generation, luggage: detail.clone().into_bytes() });
        there_and_back(&Order::OfferWithMemory { batch: generation, bytes: 7 });
        there_and_back(&Order::Serve { batch: generation });
        let mut withdrawal = Withdrawal::of(generation);
        (0..=withdrawn).for_each(|place| withdrawal.add(place * 31));
        there_and_back(&Order::Withdrawn(vec![withdrawal; withdrawn]));
        there_and_back(&Order::Ended { names: vec![detail, "x".into()] });
        there_and_back(&Report::Stopping);
    }

    #[test]
    fn a_withdrawal_has_what_was_added_to_it_and_fits_a_message(places in prop::collection::btree_set(0..253usize, 0..20)) {
        let mut withdrawal = Withdrawal::of(1);
        places.iter().for_each(|place| withdrawal.add(*place));
        let found: std::collections::BTreeSet<_> = (0..400).filter(|place| withdrawal.has(*place)).collect();
        prop_assert_eq!(withdrawal.is_empty(), places.is_empty());
        prop_assert_eq!(found, places);
        prop_assert!(Order::Withdrawn(vec![withdrawal; Withdrawal::MOST]).encode().len() <= MAX_BYTES);
    }

    #[test]
    fn no_bytes_make_a_reader_panic_or_allocate_what_they_announce(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Request::decode(&bytes), Answer::decode(&bytes), Report::decode(&bytes), Order::decode(&bytes));
        let mut greedy = bytes;
        greedy.insert(0, 1);
        greedy.splice(1..1, u64::MAX.to_le_bytes());
        prop_assert!(Answer::decode(&greedy).is_err());
    }
}

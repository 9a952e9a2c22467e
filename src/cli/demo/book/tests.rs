//! Answers, losses and kills, and what can be counted of them.

use super::*;
use proptest::prelude::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn served(session: usize, pid: u32, asked: u64, answered: u64) -> Served {
    let (asked, answered) = (ms(asked), ms(answered));
    Served { client: Client::Session(session), pid, asked, answered, works: false }
}

#[test]
fn an_answer_is_in_the_column_of_its_time_and_its_process() {
    let mut book = Book::new(2);
    book.served(served(0, 7, 1, 3));
    book.served(served(1, 7, 2, 49));
    book.served(served(0, 8, 60, 110));
    let answers: Vec<_> = book.bins().iter().map(|bin| bin.answers.clone()).collect();
    assert_eq!(answers, [vec![2], vec![], vec![0, 1]]);
    let longest: Vec<_> = book.bins().iter().map(|bin| bin.longest).collect();
    assert_eq!(longest, [ms(47), ms(0), ms(50)]);
    assert_eq!((book.pids(), book.requests(), book.longest()), (&[7, 8][..], 3, ms(50)));
}

#[test]
fn who_serves_is_told_by_the_sessions() {
    let mut book = Book::new(3);
    assert_eq!(book.alone(), None);
    for session in 0..3 {
        book.served(served(session, 7, 1, 10));
    }
    assert_eq!(book.alone(), Some(7));
    book.served(served(1, 8, 60, 70));
    assert_eq!(book.alone(), None);
    let standing = |pid, sessions, rate| Standing { pid, sessions, rate };
    assert_eq!(book.standings(ms(100)), [standing(8, 1, 10.0), standing(7, 2, 30.0)]);
    assert_eq!(book.standings(ms(1000)), [standing(8, 1, 0.0), standing(7, 2, 0.0)], "long ago");
    book.served(served(0, 8, 70, 80));
    book.lost(Loss { at: ms(90), client: Client::Session(2), words: "reset".into() });
    assert_eq!(book.alone(), Some(8), "of those that are left");
    assert_eq!(book.standings(ms(100)).len(), 1, "nobody is left with 7");
}

#[test]
fn a_kill_explains_waits_until_somebody_else_has_answered() {
    let mut book = Book::new(2);
    book.served(served(0, 7, 1, 3));
    book.killed(7, ms(100));
    assert_eq!(book.outage(), None);
    book.served(served(0, 7, 95, 101));
    book.served(served(0, 8, 99, 220));
    book.served(served(1, 8, 150, 250));
    book.served(served(1, 8, 221, 230));
    assert_eq!(book.outage(), Some(ms(120)));
    assert_eq!((book.longest_in_outage(), book.longest()), (ms(121), ms(9)));
    assert_eq!((book.take_longest_lately(), book.take_longest_lately()), (ms(9), ms(0)));
}

#[test]
fn what_was_asked_before_the_show_is_counted_and_nothing_else() {
    let mut book = Book::new(1);
    book.served(served(0, 7, 0, 0));
    book.served(served(0, 7, 0, 300));
    assert_eq!((book.requests(), book.alone(), book.longest()), (2, Some(7), ms(0)));
    assert!(book.bins().is_empty());
}

#[test]
fn work_that_takes_time_is_no_wait() {
    let mut book = Book::new(1);
    book.served(Served { works: true, ..served(0, 7, 0, 900) });
    assert_eq!((book.requests(), book.longest()), (1, ms(0)));
}

#[test]
fn all_losses_are_counted_and_the_first_ones_kept() {
    let mut book = Book::new(1);
    for number in 0..50 {
        let words = format!("reset {number}");
        book.lost(Loss { at: ms(1500), client: Client::Visitor(3), words });
    }
    assert_eq!((book.losses(), book.first_losses().len()), (50, MOST_LOSSES));
    assert!(!book.all_is_lost());
    book.lost(Loss { at: ms(1500), client: Client::Session(0), words: "reset".into() });
    assert!(book.all_is_lost());
    assert_eq!(book.first_losses()[0].to_string(), "visitor 3 after 1.50 s: reset 0");
}

#[test]
fn the_middle_of_times() {
    assert_eq!(median_and_longest([]), None);
    assert_eq!(median_and_longest([ms(3)]), Some((ms(3), ms(3))));
    assert_eq!(median_and_longest([ms(9), ms(1), ms(2)]), Some((ms(2), ms(9))));
    assert_eq!(median_and_longest([ms(9), ms(1), ms(2), ms(4)]), Some((ms(3), ms(9))));
}

proptest! {
    #[test]
    fn every_answer_of_the_first_minute_is_in_one_column(
        all in prop::collection::vec((0..5usize, 1..9u32, 0..100_000u64, 0..400u64), 0..300),
    ) {
        let mut book = Book::new(4);
        for (session, pid, asked, took) in &all {
            book.served(served(*session, *pid, *asked + 1, asked + 1 + took));
        }
        let early = all.iter().filter(|(_, _, asked, took)| asked + took < 59_999).count();
        let columns: u32 = book.bins().iter().flat_map(|bin| &bin.answers).sum();
        prop_assert_eq!(usize::try_from(columns).unwrap(), early);
        prop_assert!(book.bins().len() <= MOST_BINS);
        prop_assert_eq!(book.longest(), ms(all.iter().map(|(.., took)| *took).max().unwrap_or(0)));
        book.standings(ms(500_000));
    }
}

//! Marks for what the stand-in does otherwise, and is meant to: behind a mark a scenario must fail there.
//! So a mark that is no longer needed fails, and on a real systemd a mark changes nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Systemd;

thread_local! {
    /// Whether the scenario of this thread runs on the stand-in.
    static STANDIN: Cell<bool> = const { Cell::new(false) };
    /// Why the rest of it must fail.
    static REASON: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// From here on the scenario must fail on the stand-in, for this reason; or, with an expression, that alone,
/// and the scenario goes on.
macro_rules! differs_on_standin {
    ($reason:literal) => {
        crate::lab::mark::rest_fails($reason)
    };
    ($reason:literal, $what:expr) => {
        crate::lab::mark::fails($reason, || {
            let _ = $what;
        })
    };
}

/// Runs a scenario, and holds it to its mark.
pub(crate) fn run(systemd: Systemd, scenario: fn(Systemd)) {
    STANDIN.set(systemd == Systemd::Standin);
    let done = catch_unwind(|| scenario(systemd));
    match (REASON.take(), done) {
        (None, Ok(())) => {}
        (None, Err(panic)) => resume_unwind(panic),
        (Some(reason), Ok(())) => panic!("the mark is no longer needed: {reason}"),
        (Some(reason), Err(_)) => println!("differs, as meant: {reason}"),
    }
}

/// See [`differs_on_standin`].
pub(crate) fn rest_fails(reason: &'static str) {
    if STANDIN.get() {
        REASON.set(Some(reason));
    }
}

/// See [`differs_on_standin`].
pub(crate) fn fails(reason: &'static str, what: impl FnOnce()) {
    if !STANDIN.get() {
        return what();
    }
    assert!(catch_unwind(AssertUnwindSafe(what)).is_err(), "the mark is no longer needed: {reason}");
    println!("differs, as meant: {reason}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(_: Systemd) {
        differs_on_standin!("it is not systemd", assert!(!STANDIN.get()));
        differs_on_standin!("nor will it be");
        assert!(!STANDIN.get());
    }

    fn does_not(_: Systemd) {
        differs_on_standin!("a slander");
    }

    fn does_not_here(_: Systemd) {
        differs_on_standin!("a slander", ());
    }

    #[test]
    fn a_mark_is_a_promise_to_fail_on_the_standin_and_nothing_on_a_systemd() {
        let holds = |systemd, scenario: fn(Systemd)| catch_unwind(|| run(systemd, scenario)).is_ok();
        for (scenario, needed) in [(differs as fn(Systemd), true), (does_not, false), (does_not_here, false)]
        {
            assert!(holds(Systemd::V252, scenario));
            assert_eq!(holds(Systemd::Standin, scenario), needed);
        }
        let fails = |_| assert!(STANDIN.take(), "unmarked");
        assert!(!holds(Systemd::V252, fails));
    }
}

//! What programs read about the demo: one JSON object at its end, always with the same fields.

use std::time::Duration;

use serde::Serialize;

use super::book::Loss;
use super::course::{Course, Event, What};

/// A show. Fields are added, never renamed or taken away; what does not apply is null. Times are in
/// seconds.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a> {
    /// Whether nothing was lost, and all that was to happen did: whether the exit status is 0.
    ok: bool,
    /// Why it is not, if it is not for a loss.
    trouble: Option<&'a str>,
    /// Requests that were answered as they should be.
    requests: u64,
    /// Those that were not.
    failures: u64,
    /// The first of these in words.
    losses: Vec<String>,
    /// Connections that clients made.
    connections: u64,
    /// Answers that came again after a kill, each counted once.
    repeated: u64,
    /// Who answered, in the order in which they began to.
    pids: &'a [u32],
    /// Upgrades that took place.
    upgrades: usize,
    /// The middle of the times that these took.
    switch_median: Option<f64>,
    /// The longest of them.
    switch_longest: Option<f64>,
    /// The longest wait for an answer, but for those that a kill explains.
    longest_wait: f64,
    /// The longest of those.
    longest_wait_over_kill: Option<f64>,
    /// How long it all took.
    seconds: f64,
    /// What happened, in its order.
    events: Vec<Happened<'a>>,
}

/// One thing that happened.
#[derive(Debug, Default, Serialize)]
struct Happened<'a> {
    /// When it was begun.
    at: f64,
    /// `started`, `upgraded`, `failed`, `killed` or `stopped`.
    what: &'static str,
    /// Who served before.
    old_pid: Option<u32>,
    /// Who served after it.
    serving_pid: Option<u32>,
    /// How long it took; of a kill, how long nobody answered.
    seconds: Option<f64>,
    /// The longest wait meanwhile.
    longest_wait: Option<f64>,
    /// Of a kill, how long the clients that make new connections paused for it.
    paused: Option<f64>,
    /// One word for why an upgrade failed.
    reason: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// The record of a show.
    pub(super) fn of(course: &'a Course) -> Self {
        let (book, switch) = (&course.book, course.switch());
        Self {
            ok: course.went_well(),
            trouble: course.trouble.as_deref(),
            requests: book.requests(),
            failures: book.losses(),
            losses: book.first_losses().iter().map(Loss::to_string).collect(),
            connections: book.connections(),
            repeated: book.answers_repeated(),
            pids: book.pids(),
            upgrades: course.switches().len(),
            switch_median: switch.map(|(median, _)| median.as_secs_f64()),
            switch_longest: switch.map(|(_, longest)| longest.as_secs_f64()),
            longest_wait: book.longest().as_secs_f64(),
            longest_wait_over_kill: book.outage().map(|_| book.longest_in_outage().as_secs_f64()),
            seconds: course.took.as_secs_f64(),
            events: course.events.iter().map(Happened::of).collect(),
        }
    }

    /// The record as one line of JSON, without its end.
    pub(super) fn line(&self) -> String {
        // Strings, numbers and lists of them: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> Happened<'a> {
    fn of(event: &'a Event) -> Self {
        let seconds = |time: &Duration| Some(time.as_secs_f64());
        let blank = Self { at: event.at.as_secs_f64(), ..Self::default() };
        match &event.what {
            What::Started { pid, took } => {
                Self { what: "started", serving_pid: Some(*pid), seconds: seconds(took), ..blank }
            }
            What::Upgraded { old, new, took, longest_wait, .. } => Self {
                what: "upgraded",
                old_pid: Some(*old),
                serving_pid: Some(*new),
                seconds: seconds(took),
                longest_wait: seconds(longest_wait),
                ..blank
            },
            What::Failed { serving, reason, took, longest_wait, .. } => Self {
                what: "failed",
                old_pid: Some(*serving),
                serving_pid: Some(*serving),
                seconds: seconds(took),
                longest_wait: seconds(longest_wait),
                reason: Some(reason),
                ..blank
            },
            What::Killed { old, new, silence, aside } => Self {
                what: "killed",
                old_pid: Some(*old),
                serving_pid: Some(*new),
                seconds: seconds(silence),
                paused: seconds(aside),
                ..blank
            },
            What::Stopped { took } => Self { what: "stopped", seconds: seconds(took), ..blank },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::course::sample;
    use super::*;
    use serde_json::{Value, json};

    fn read(course: &Course) -> Value {
        let line = Record::of(course).line();
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_show_is_one_line_with_its_figures() {
        let record = read(&sample());
        let figures = ["ok", "failures", "connections", "repeated", "pids", "upgrades", "trouble", "losses"];
        let found: Vec<_> = figures.map(|field| record[field].clone()).into();
        let pids = [4711, 4720, 4731, 4740];
        assert_eq!(json!(found), json!([true, 0, 4, 0, pids, 2, null, []]));
        assert_eq!(record["switch_median"], json!(0.018));
        assert!(record["longest_wait_over_kill"].as_f64().is_some_and(|longest| longest > 0.0));
    }

    #[test]
    fn all_events_have_the_same_fields() {
        let record = read(&sample());
        let events = record["events"].as_array().unwrap();
        let fields = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert!(events.iter().all(|event| fields(event) == fields(&events[0])));
        let whats: Vec<_> = events.iter().map(|event| event["what"].as_str().unwrap()).collect();
        assert_eq!(whats, ["started", "upgraded", "upgraded", "failed", "killed", "stopped"]);
        assert_eq!(events[3]["reason"], "successor-exited");
        assert_eq!((&events[4]["old_pid"], &events[4]["serving_pid"]), (&json!(4731), &json!(4740)));
    }

    #[test]
    fn what_went_wrong_is_said() {
        let mut course = sample();
        course.trouble = Some("the stand-in ended".into());
        let record = read(&course);
        assert_eq!((&record["ok"], &record["trouble"]), (&json!(false), &json!("the stand-in ended")));
    }
}

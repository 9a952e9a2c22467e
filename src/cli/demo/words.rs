//! What people read of the demo: a line an event, and the figures at the end.
//!
//! Pure: where it is printed is not known here.

use std::time::Duration;

use super::course::{Course, Event, What};

/// Colours, where a person looks on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ink {
    pub(super) colours: bool,
}

impl Ink {
    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn noted(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[m") } else { text.to_owned() }
    }
}

/// An event in a line, or two.
pub(super) fn event(event: &Event, ink: Ink) -> String {
    let line = |name: &str, text: &str| format!("{:>6.1} s  {name:<12}{text}", event.at.as_secs_f64());
    match &event.what {
        What::Started { pid, took } => {
            line("start", &format!("{pid} serves, {} after `handover pid1` was started", milliseconds(*took)))
        }
        What::Upgraded { number, old, new, took, longest_wait } => {
            let (took, wait) = (milliseconds(*took), milliseconds(*longest_wait));
            let text = format!("{old} -> {new} in {took:>6}   longest wait {wait:>6}");
            line(&format!("upgrade {number}"), &text)
        }
        What::Failed { serving, reason, words, longest_wait, .. } => {
            let wait = milliseconds(*longest_wait);
            let text = format!("refused ({reason}); {serving} serves on, longest wait {wait}");
            ink.noted(&line("bad version", &text)) + &below(words, ink)
        }
        What::Killed { old, new, silence, aside } => {
            let (silence, aside) = (milliseconds(*silence), milliseconds(*aside));
            let text = format!("{old} -> {new} in {silence:>6}   every session went on");
            let honest = format!(
                "what it had accepted and PID 1 did not hold yet died with it: no visitor asked in these {aside}"
            );
            ink.noted(&line("kill -9", &text)) + &below(&honest, ink)
        }
        What::Stopped { took } => line("stop", &format!("all processes left in {}", milliseconds(*took))),
    }
}

/// A remark in a line of its own, below the words of an event.
fn below(remark: &str, ink: Ink) -> String {
    if remark.is_empty() { String::new() } else { format!("\n{:21}{}", "", ink.faint(&plain(remark))) }
}

/// The figures, in some lines.
pub(super) fn summary(course: &Course, ink: Ink) -> String {
    let book = &course.book;
    let mut lines = vec![format!(
        "requests   {} on {} connections, answered by {} processes",
        grouped(book.requests()),
        grouped(book.connections()),
        book.pids().len()
    )];
    if let Some((median, longest)) = course.switch() {
        let (median, longest) = (milliseconds(median), milliseconds(longest));
        let failed = match course.failed() {
            0 => String::new(),
            failed => format!("; {failed} more failed, as it should"),
        };
        lines.push(format!("upgrades   {}{failed}", course.switches().len()));
        lines.push(format!("to switch  {median} (median), {longest} (longest)"));
    }
    let over_kill = match book.outage() {
        Some(_) => format!("; {} over the kill -9", milliseconds(book.longest_in_outage())),
        None => String::new(),
    };
    lines.push(format!("waits      {} (longest){over_kill}", milliseconds(book.longest())));
    lines.push(format!("failures   {}", grouped(book.losses())));
    for loss in book.first_losses() {
        lines.push(ink.bad(&format!("           {}", plain(&loss.to_string()))));
    }
    if let Some(trouble) = &course.trouble {
        lines.push(ink.bad(trouble));
    }
    lines.push(match book.losses() {
        0 if course.went_well() => ink.good("Nothing was lost."),
        0 => ink.bad("Nothing was lost, but not all that was to happen did."),
        lost => ink.bad(&format!("{} lost.", counted(lost, "request"))),
    });
    lines.join("\n")
}

/// The outcome in one line, for a picture.
pub(super) fn outcome(course: &Course) -> String {
    let mut parts = Vec::new();
    if let Some((median, longest)) = course.switch() {
        let upgrades = counted(course.switches().len() as u64, "upgrade");
        let (median, longest) = (milliseconds(median), milliseconds(longest));
        parts.push(format!("{upgrades}, {median} each (median; longest {longest})"));
    }
    if course.failed() > 0 {
        parts.push("a bad version refused".to_owned());
    }
    if course.kills() > 0 {
        parts.push("a kill -9".to_owned());
    }
    let wait = milliseconds(course.book.longest());
    parts.push(match course.book.outage() {
        Some(_) => {
            let outage = milliseconds(course.book.longest_in_outage());
            format!("longest wait {wait}, over the kill {outage}")
        }
        None => format!("longest wait {wait}"),
    });
    parts.join(" \u{b7} ")
}

/// A time, as exact as anybody wants it.
pub(super) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 9.95 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

/// A number with commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

/// Without control characters, which a service may have put into its words.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::book::{Client, Loss};
    use super::super::course::sample;
    use super::*;

    const BLACK: Ink = Ink { colours: false };

    #[test]
    fn each_event_is_told_with_its_processes_and_times() {
        let told: Vec<_> = sample().events.iter().map(|happened| event(happened, BLACK)).collect();
        assert_eq!(told[0], "   0.0 s  start       4711 serves, 40 ms after `handover pid1` was started");
        assert_eq!(told[1], "   1.0 s  upgrade 1   4711 -> 4720 in  18 ms   longest wait 2.0 ms");
        assert!(told[3].contains("refused (successor-exited); 4731 serves on"), "{}", told[3]);
        assert!(told[3].ends_with("\n                     it was killed by SIGABRT <&\"'>"), "{}", told[3]);
        assert!(told[4].contains("4731 -> 4740 in 120 ms   every session went on\n"), "{}", told[4]);
        assert!(told[4].contains("no visitor asked in these 1.0 ms"), "{}", told[4]);
        assert!(event(&sample().events[4], Ink { colours: true }).contains("\x1b[33m"));
    }

    #[test]
    fn the_figures_say_what_was_lost_or_that_nothing_was() {
        let mut course = sample();
        let told = summary(&course, BLACK);
        assert!(told.contains("upgrades   2; 1 more failed, as it should\n"), "{told}");
        assert!(told.contains("to switch  18 ms (median), 18 ms (longest)\n"), "{told}");
        assert!(told.ends_with("failures   0\nNothing was lost."), "{told}");
        let words = "reset\x1b[2J".to_owned();
        course.book.lost(Loss { at: Duration::from_secs(1), client: Client::Session(1), words });
        let told = summary(&course, BLACK);
        assert!(told.ends_with("           session 1 after 1.00 s: reset [2J\n1 request lost."), "{told}");
    }

    #[test]
    fn what_did_not_happen_is_no_success() {
        let trouble = Some("the stand-in ended".to_owned());
        let told = summary(&Course { trouble, ..sample() }, BLACK);
        assert!(told.contains("\nthe stand-in ended\nNothing was lost, but not"), "{told}");
    }

    #[test]
    fn numbers_are_easy_to_read() {
        let told = [0, 999, 1000, 61_204, 1_000_000].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "61,204", "1,000,000"]);
        let told = [400, 9_940, 9_960, 120_400].map(|micros| milliseconds(Duration::from_micros(micros)));
        assert_eq!(told, ["0.4 ms", "9.9 ms", "10 ms", "120 ms"]);
        assert_eq!(
            [0, 1, 2].map(|number| counted(number, "request")),
            ["0 requests", "1 request", "2 requests"]
        );
    }
}

//! Where a status is shown: in lines, on a terminal that is drawn anew, or in JSON.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::is_screen;
use crate::status::{Last, Main, Own, Queue, Status, Store};

/// Back to the top left, and nothing from there on: ECMA-48.
const ANEW: &str = "\x1b[H\x1b[J";

/// A screen.
pub(super) struct Screen {
    json: bool,
    /// Each status takes the place of the one before.
    anew: bool,
    colours: bool,
}

impl Screen {
    /// What stdout is.
    pub(super) fn find(json: bool, watch: bool) -> Self {
        let live = is_screen() && !json;
        // no-color.org: set, and not empty.
        let colours = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, anew: live && watch, colours }
    }

    /// Shows how all of them stand. Errors: what write(2) says.
    pub(super) fn show(&self, all: &[Status]) -> io::Result<()> {
        let mut text = String::new();
        if self.anew {
            text += ANEW;
        }
        for (place, status) in all.iter().enumerate() {
            if self.json {
                // Numbers, strings and lists of them: there is nothing in it that JSON cannot say.
                text += &serde_json::to_string(status).unwrap_or_default();
                text += "\n";
            } else {
                text += if place > 0 { "\n" } else { "" };
                text += &self.words(status);
            }
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }

    /// One status, in lines.
    fn words(&self, status: &Status) -> String {
        let mut lines = Lines(String::new());
        let state = match status.active == status.sub {
            true => status.active.clone(),
            false => format!("{} ({})", status.active, status.sub),
        };
        let state = if status.is_there() { state } else { "there is no such unit".to_owned() };
        let colour = if status.is_active() { "32" } else { "31" };
        lines.0 +=
            &format!("{} {}\n", self.paint("1", &plain(&status.unit)), self.paint(colour, &plain(&state)));
        if let Some(main) = &status.main {
            lines.put("main", &process(main, status.service.as_ref()));
            if main.replaced {
                lines.put("", &self.paint("33", "its file is another one by now: an upgrade starts that"));
            }
        }
        if let Some(own) = &status.service {
            lines.put("", &own_words(own));
        }
        status.sockets.iter().for_each(|one| lines.put("socket", &queue(one)));
        for one in status.service.iter().flat_map(|own| &own.draining) {
            let left = span(one.seconds_left);
            lines.put("drains", &format!("{}  {} in flight, {left} left", one.pid, one.in_flight));
        }
        if status.store.most > 0 {
            lines.put("fd store", &store(&status.store));
        }
        if !status.said.is_empty() {
            lines.put("says", &plain(&status.said));
        }
        if let Some(own) = status.last_upgrade.as_ref() {
            let colour = if own.switched { "0" } else { "33" };
            lines.put("last", &self.paint(colour, &last(own)));
        }
        if let (Some(why), true) = (&status.silent, status.main.is_some()) {
            lines.put("but", &format!("the service itself was not heard: {}", plain(why)));
        }
        for one in &status.obstacles {
            let colour = if one.stops { "31" } else { "33" };
            lines.put("next", &self.paint(colour, &format!("{}: {}", one.name, plain(&one.why))));
        }
        if status.obstacles.is_empty() {
            lines.put("next", "nothing stands in the way of an upgrade");
        }
        lines.0
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Lines with a label each.
struct Lines(String);

impl Lines {
    fn put(&mut self, label: &str, text: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{label:>10}  {text}");
    }
}

fn process(main: &Main, own: Option<&Own>) -> String {
    let mut text = main.pid.to_string();
    if let Some(seconds) = main.seconds {
        text += &format!(" for {}", span(seconds));
    }
    if let Some(own) = own.filter(|own| own.is_runner) {
        text += &format!(", the runner of {}", own.pid);
    }
    if let Some(program) = &main.program {
        text += &format!("  {}", plain(&program.to_string_lossy()));
    }
    text
}

fn own_words(own: &Own) -> String {
    let under_way = if own.under_way { ", an upgrade is under way" } else { "" };
    format!(
        "generation {}, {} in flight{under_way} (handover {})",
        own.generation,
        own.in_flight,
        plain(&own.handover)
    )
}

fn queue(one: &Queue) -> String {
    let slots = if one.slots > 1 { format!(" in {} slots", one.slots) } else { String::new() };
    let waiting = match (one.waiting, one.most) {
        (Some(waiting), Some(most)) => format!(", {waiting} of {most} wait"),
        _ => String::new(),
    };
    let state = if one.active == "active" { String::new() } else { format!(" {}", one.active) };
    plain(&format!("{}  {}{slots}{waiting}{state}", one.address, one.unit))
}

fn store(store: &Store) -> String {
    let entries = store.entries.iter().flatten().map(|(name, kind, count)| match count {
        1 => format!("{name} ({kind})"),
        count => format!("{count} {name} ({kind})"),
    });
    let entries = entries.collect::<Vec<_>>().join(", ");
    let colon = if entries.is_empty() { "" } else { ": " };
    plain(&format!("{} of {}{colon}{entries}", store.held, store.most))
}

fn last(last: &Last) -> String {
    let ago = last.seconds_ago.map_or(String::new(), |seconds| format!(" {} ago", span(seconds)));
    let how = match (&last.reason, last.switched) {
        (_, true) => format!("upgraded{ago}: "),
        (Some(reason), false) => format!("failed{ago} ({reason}): "),
        (None, false) => format!("failed{ago}: "),
    };
    plain(&format!("{how}{}", last.text))
}

/// A span of time in its two largest units.
fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// Without control characters, which a service may have put into its words.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        let told = [3.9, 61.0, 7325.0, 90000.0].map(span);
        assert_eq!(told, ["3 s", "1 min 1 s", "2 h 2 min", "1 d 1 h"]);
    }

    #[test]
    fn what_a_service_says_cannot_move_the_cursor() {
        let reason = Some("x".to_owned());
        let told = last(&Last { switched: false, reason, text: "\x1b[2J".into(), seconds_ago: None });
        assert_eq!(told, "failed (x):  [2J");
    }
}

//! How an upgrade gets on, while it does: bars on a terminal, events for programs, nothing else.
//!
//! It is told by a second look at the service: what is missed between two looks is not told, and the end of
//! it all is the report's to tell.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::say;
use crate::manager::{Error, Manager};
use crate::status::{Status, Watcher};

/// How often what nobody tells is looked at: connections that drain.
const TICK: Duration = Duration::from_millis(500);

/// Who looks on.
pub(super) enum Progress {
    /// A person at a terminal.
    Bars(MultiProgress),
    /// A program.
    Events,
    /// A file, a pipe, a log: the report is enough.
    Silent,
}

/// One line for programs. Fields are added, never renamed or taken away.
#[derive(Debug, Default, Serialize)]
struct Event<'a> {
    /// `begun`, `phase`, `switched`, `draining`; the last one of a unit is `ended`, see [`Record`].
    ///
    /// [`Record`]: super::record::Record
    event: &'static str,
    unit: &'a str,
    /// The main process.
    pid: Option<u32>,
    /// What the service says.
    text: Option<&'a str>,
    /// Those who drain, with what they have in flight.
    draining: Vec<(i32, u64)>,
}

/// What was told last.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Told {
    pid: Option<u32>,
    text: String,
    draining: Vec<(i32, u64)>,
}

impl Progress {
    /// What stderr is, unless a program reads stdout.
    pub(super) fn find(json: bool) -> Self {
        if json {
            return Self::Events;
        }
        let target = ProgressDrawTarget::stderr();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || target.is_hidden() {
            return Self::Silent;
        }
        Self::Bars(MultiProgress::with_draw_target(target))
    }

    /// Writes something past the bars.
    pub(super) fn past(&self, write: impl FnOnce()) {
        match self {
            Self::Bars(bars) => bars.suspend(write),
            Self::Events | Self::Silent => write(),
        }
    }

    /// Tells how the upgrade of `unit` gets on, for as long as this is polled.
    pub(super) async fn follow(&self, manager: &Manager, unit: &str) -> Result<(), Error> {
        if matches!(self, Self::Silent) {
            return Ok(());
        }
        let bar = self.bar(unit);
        let mut watcher = Watcher::find(manager, unit, true).await?;
        let (mut told, mut thoroughly) = (None, true);
        loop {
            let status = watcher.look(thoroughly).await?;
            self.tell(&status, &mut told, bar.as_ref().map(|bar| &bar.0));
            tokio::select! {
                change = watcher.change() => {
                    change?;
                    thoroughly = true;
                }
                () = tokio::time::sleep(TICK) => thoroughly = false,
            }
        }
    }

    /// A line that changes.
    fn bar(&self, unit: &str) -> Option<Bar> {
        let Self::Bars(bars) = self else { return None };
        let bar = bars.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(unit.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Some(Bar(bar))
    }

    /// Tells what is new.
    fn tell(&self, status: &Status, told: &mut Option<Told>, bar: Option<&ProgressBar>) {
        let drains = status.service.iter().flat_map(|own| &own.draining);
        let now = Told {
            pid: status.main.as_ref().map(|main| main.pid),
            text: status.said.clone(),
            draining: drains.map(|one| (one.pid, one.in_flight)).collect(),
        };
        if let Some(bar) = bar {
            bar.set_message(words(&now));
        } else {
            let event = |event| Event { event, unit: &status.unit, pid: now.pid, ..Event::default() };
            let emit = |event: Event<'_>| say(&serde_json::to_string(&event).unwrap_or_default());
            match told {
                None => emit(event("begun")),
                Some(before) => {
                    if before.pid != now.pid {
                        emit(event("switched"));
                    }
                    if before.text != now.text {
                        emit(Event { text: Some(&now.text), ..event("phase") });
                    }
                    if before.draining != now.draining {
                        emit(Event { draining: now.draining.clone(), ..event("draining") });
                    }
                }
            }
        }
        *told = Some(now);
    }
}

/// A line that goes when it is dropped.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How it gets on, for people. Text of the service's is in it: nothing in it moves the cursor.
fn words(now: &Told) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = now.text.chars().map(plain).collect();
    match now.draining.first() {
        Some((pid, count)) => format!("{text}; {pid} has {count} in flight"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_cannot_move_the_cursor() {
        let told = Told { pid: Some(7), text: "\x1b[2Jup".into(), draining: vec![(6, 3)] };
        assert_eq!(words(&told), " [2Jup; 6 has 3 in flight");
    }
}

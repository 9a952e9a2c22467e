//! Where the show is seen: live on a terminal, in lines elsewhere, not at all by programs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::book::{Book, Standing};
use super::clients::SESSIONS;
use super::words::{Ink, grouped, milliseconds};

/// How often the live part is drawn.
pub(super) const REFRESH: Duration = Duration::from_millis(60);

/// Who looks on.
pub(super) enum Screen {
    /// A person at a terminal.
    Live(Live),
    /// A file, a pipe, a log.
    Lines,
    /// A program, which reads one object at the end.
    Silent,
}

/// The part of a terminal that changes: a bar for each process that serves, and the count.
pub(super) struct Live {
    all: MultiProgress,
    processes: Vec<ProgressBar>,
    count: ProgressBar,
    ink: Ink,
}

impl Screen {
    /// What stdout is, unless a program reads it.
    pub(super) fn find(json: bool) -> Self {
        if json {
            return Self::Silent;
        }
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !io::stdout().is_terminal() || dumb {
            return Self::Lines;
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let count = all.add(ProgressBar::new_spinner());
        count.set_style(style("{msg}"));
        // no-color.org: set, and not empty.
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::Live(Live { all, processes: Vec::new(), count, ink: Ink { colours } })
    }

    /// Whether there are colours on it.
    pub(super) fn ink(&self) -> Ink {
        match self {
            Self::Live(live) => live.ink,
            Self::Lines | Self::Silent => Ink { colours: false },
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        // Nobody is left to tell if this fails, here and below.
        let _ = match self {
            Self::Live(live) => live.all.suspend(|| put(text)),
            Self::Lines => put(text),
            Self::Silent => Ok(()),
        };
    }

    /// Shows how things stand now.
    pub(super) fn show(&mut self, book: &Book, now: Duration) {
        if let Self::Live(live) = self {
            live.show(&book.standings(now));
            let lost = format!("{} lost", grouped(book.losses()));
            let lost = if book.losses() == 0 { live.ink.good(&lost) } else { live.ink.bad(&lost) };
            let (requests, wait) = (grouped(book.requests()), milliseconds(book.longest()));
            live.count.set_message(format!("{requests:>14} requests, {lost}, longest wait {wait}"));
        }
    }

    /// Takes away what changes.
    pub(super) fn clear(&mut self) {
        if let Self::Live(live) = self {
            live.processes.drain(..).for_each(|bar| bar.finish_and_clear());
            live.count.finish_and_clear();
        }
    }
}

impl Live {
    fn show(&mut self, standings: &[Standing]) {
        while self.processes.len() > standings.len() {
            self.processes.pop().inspect(|bar| bar.finish_and_clear());
        }
        while self.processes.len() < standings.len() {
            let bar = ProgressBar::new(SESSIONS as u64);
            self.processes.push(self.all.insert(self.processes.len(), bar));
        }
        for (place, (bar, standing)) in self.processes.iter().zip(standings).enumerate() {
            let Standing { pid, sessions, rate } = *standing;
            let (colour, end) = if place == 0 { ("green", "") } else { ("yellow", ", draining") };
            let colour = if self.ink.colours { format!(".{colour}") } else { String::new() };
            bar.set_style(style(&format!("{{prefix:>14}} {{bar:32{colour}}} {{msg}}")));
            bar.set_prefix(format!("pid {pid}"));
            bar.set_position(sessions as u64);
            let rate = grouped(rate.round() as u64);
            bar.set_message(format!("{sessions:>2} sessions, {rate:>5} requests/s{end}"));
        }
    }
}

/// A style of ours; indicatif's own should it not be one.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("\u{2588}\u{2589}\u{258a}\u{258b}\u{258c}\u{258d}\u{258e}\u{258f} ")
}

/// A line, at once.
pub(super) fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

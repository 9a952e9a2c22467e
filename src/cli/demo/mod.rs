//! `handover demo`: the main job, before your eyes. A service under the stand-in for PID 1, clients that
//! never retry, upgrades, a version that crashes, a kill -9; and what the clients saw of it.
//!
//! ```text
//!   this process                        a folder that goes away again
//!   +------------------+   starts       +-----------------------------+
//!   | show: the script | -------------> | the stand-in: keeper.socket |
//!   | clients: a thread| --- asks ----> |   keeper.service            |
//!   | screen           |                |     handover demo --serve   |
//!   +------------------+                +-----------------------------+
//!            \--- handover upgrade --standin ... keeper ---^
//! ```
//!
//! It needs no root, no systemd and no configuration, and never leaves anything behind: the stand-in sees
//! the end of this process, also by kill -9, ends with all that it has started, and removes the folder.

mod book;
mod chart;
mod children;
mod clients;
mod course;
mod folder;
mod record;
mod screen;
mod service;
mod session;
mod show;
mod stage;
mod words;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::sys::prctl;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use clients::{SESSIONS, VISITORS};
use course::Course;
use record::Record;
use screen::{Screen, put};
use stage::Stage;

/// The time between two steps, in milliseconds.
const BEAT: u64 = 1200;

/// See it: a service is upgraded, broken and killed under load, and its clients notice nothing.
///
/// Takes a dozen seconds; needs no root, no systemd, no configuration, and leaves nothing behind. Exits 1
/// if anything was lost.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
    /// Draw what happened, as an SVG: requests a second by process, and the longest waits
    #[arg(long, value_name = "FILE.svg")]
    report: Option<PathBuf>,
    /// Let the service drop a connection, to see that the demo notices
    #[arg(long)]
    sabotage: bool,
    /// Be the service
    #[arg(long, hide = true)]
    serve: bool,
    /// Be the stand-in, for a show in this folder
    #[arg(long, hide = true, value_name = "FOLDER")]
    pid1: Option<PathBuf>,
    /// Milliseconds between two steps
    #[arg(long, hide = true, default_value_t = BEAT, value_name = "MS")]
    beat: u64,
}

impl Demo {
    /// Runs the show, or the service in it.
    pub(crate) fn run(&self) -> Exit {
        if self.serve && crate::sys::process::executed_path().is_ok_and(|path| folder::is_bad(&path)) {
            crash();
        }
        if let Some(folder) = &self.pid1 {
            return match stage::stand_in(folder) {
                Ok(()) => Exit::Success,
                Err(error) => complain(&error.to_string()),
            };
        }
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) if self.serve => runtime.block_on(self.serve()),
            Ok(runtime) => runtime.block_on(self.show()),
            Err(error) => complain(&format!("no event loop: {error}")),
        }
    }

    async fn serve(&self) -> Exit {
        match service::serve(self.sabotage).await {
            Ok(()) => Exit::Success,
            Err(error) => complain(&error.to_string()),
        }
    }

    async fn show(&self) -> Exit {
        let mut screen = Screen::find(self.json);
        let played = match interruption() {
            Ok(interrupted) => self.play(&mut screen, interrupted).await,
            Err(error) => Err(format!("cannot catch signals: {error}")),
        };
        screen.clear();
        let course = match played {
            Ok(course) => course,
            Err(words) => return complain(&words),
        };
        // Nobody is left to tell if this fails.
        let _ = if self.json {
            put(&Record::of(&course).line())
        } else {
            put(&format!("\n{}", words::summary(&course, screen.ink())))
        };
        let drawn = self.report.as_deref().map_or(Ok(()), |file| draw(file, &course));
        match drawn {
            Err(words) => complain(&words),
            Ok(()) if course.went_well() => Exit::Success,
            Ok(()) => Exit::Failed,
        }
    }

    /// The show from the first process to the last. The stage is gone when this returns.
    async fn play(
        &self,
        screen: &mut Screen,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Course, String> {
        tokio::pin!(interrupted);
        let mut stage = tokio::select! {
            stage = Stage::set(self.sabotage) => stage?,
            () = &mut interrupted => return Err("interrupted".to_owned()),
        };
        screen.say(&introduction(&stage));
        show::play(&mut stage, screen, Duration::from_millis(self.beat), interrupted).await
    }
}

/// What there is to see.
fn introduction(stage: &Stage) -> String {
    format!(
        "units/keeper.service runs under `handover pid1` on {}. {SESSIONS} sessions ask it all the time,\n\
         {VISITORS} visitors with a new connection for each request. None ever retries.\n",
        stage.address()
    )
}

/// Resolves when somebody wants the show to end. From now on signals do not end this process.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    })
}

fn draw(file: &Path, course: &Course) -> Result<(), String> {
    std::fs::write(file, chart::svg(course))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// Ends this process as a program with a mistake ends, and leaves no core.
fn crash() -> ! {
    complain("a bad version: about to crash");
    // If this fails there is a core.
    let _ = prctl::set_dumpable(false);
    std::process::abort()
}

/// One line for stderr.
fn complain(words: &str) -> Exit {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "handover demo: {words}");
    Exit::Failed
}

//! The show itself: what is done to the service, in which order, while everybody asks it.
//!
//! It never judges: what the clients saw is in their book.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use super::book::Book;
use super::children::Process;
use super::clients::Load;
use super::course::{Course, Event, What};
use super::folder::Version;
use super::screen::{REFRESH, Screen};
use super::stage::{Stage, Told};
use super::words;
use crate::manager::Reason;

/// What is done, one after the other.
const SCRIPT: [Step; 8] = [
    Step::Upgrade,
    Step::Upgrade,
    Step::Upgrade,
    Step::BadVersion,
    Step::Upgrade,
    Step::Kill,
    Step::Upgrade,
    Step::Upgrade,
];

/// The time in which all sessions are set up: before the second answer of each PID 1 is known to have it,
/// which takes 10 ms and more. The show begins after that, and so do its clocks.
const WARM_UP: Duration = Duration::from_millis(600);

/// How long anything may take that takes milliseconds as a rule.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that is done.
#[derive(Clone, Copy, Debug)]
enum Step {
    Upgrade,
    BadVersion,
    Kill,
}

/// Plays it all, with `beat` between two steps, and stops the service; until `interrupted`, for who does
/// not want to see the end. In words why there was no show.
pub(super) async fn play(
    stage: &mut Stage,
    screen: &mut Screen,
    beat: Duration,
    interrupted: impl Future<Output = ()>,
) -> Result<Course, String> {
    let begin = Instant::now() + WARM_UP;
    let mut load = Load::start(stage.address(), begin).map_err(|error| format!("no clients: {error}"))?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut events = Vec::new();
    let mut happened = |event: Event, screen: &Screen| {
        screen.say(&words::event(&event, screen.ink()));
        events.push(event);
    };
    let mut frames = interval(REFRESH);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let trouble = {
        let hands = Hands { stage: &*stage, load: &load, begin, beat, tell };
        let script = hands.play();
        tokio::pin!(script, interrupted);
        loop {
            tokio::select! {
                () = &mut interrupted => return Err("interrupted".to_owned()),
                ended = stage.standin_ends() => break Some(ended),
                Some(event) = told.recv() => happened(event, screen),
                _ = frames.tick() => screen.show(&load.book(), begin.elapsed()),
                played = &mut script => break played.err().map(|words| stage.with_log(&words)),
            }
        }
    };
    while let Ok(event) = told.try_recv() {
        happened(event, screen);
    }
    load.stop().await;
    screen.clear();
    let at = begin.elapsed();
    let stopped = match stage.stop().await {
        Ok(took) => {
            happened(Event { at, what: What::Stopped { took } }, screen);
            None
        }
        Err(words) => Some(words),
    };
    let book = std::mem::replace(&mut *load.book(), Book::new(0));
    Ok(Course { events, book, took: begin.elapsed(), trouble: trouble.or(stopped) })
}

/// Who does what is done.
struct Hands<'a> {
    stage: &'a Stage,
    load: &'a Load,
    begin: Instant,
    beat: Duration,
    tell: mpsc::UnboundedSender<Event>,
}

impl Hands<'_> {
    /// The script, to its end. In words what went otherwise, here and below.
    async fn play(&self) -> Result<(), String> {
        let pid = self.alone(|_| true, "no process answers all sessions").await?;
        sleep_until(self.begin.into()).await;
        self.tell(Duration::ZERO, What::Started { pid, took: self.stage.start() });
        let mut number = 0;
        for step in SCRIPT {
            sleep(self.beat).await;
            match step {
                Step::Upgrade => {
                    number += 1;
                    self.upgrade(number).await?;
                }
                Step::BadVersion => self.bad_version().await?,
                Step::Kill => self.kill().await?,
            }
        }
        sleep(self.beat).await;
        Ok(())
    }

    fn tell(&self, at: Duration, what: What) {
        // Who listens outlives us.
        let _ = self.tell.send(Event { at, what });
    }

    async fn upgrade(&self, number: usize) -> Result<(), String> {
        let (at, _) = (self.begin.elapsed(), self.load.book().take_longest_lately());
        let told = self.stage.upgrade().await?;
        let (Some(old), Some(new), "switched") = (told.old_pid, told.serving_pid, &*told.outcome) else {
            return Err(format!("upgrade {number} failed: {}", told.message));
        };
        self.alone(|pid| pid == new, "not all sessions have moved").await?;
        let longest_wait = self.load.book().take_longest_lately();
        self.tell(at, What::Upgraded { number, old, new, took: took(&told), longest_wait });
        Ok(())
    }

    async fn bad_version(&self) -> Result<(), String> {
        let (at, _) = (self.begin.elapsed(), self.load.book().take_longest_lately());
        self.stage.install(Version::Bad)?;
        let told = self.stage.upgrade().await?;
        self.stage.install(Version::Good)?;
        let (Some(serving), "failed") = (told.serving_pid, &*told.outcome) else {
            return Err(format!("a bad version was to be refused: {}", told.message));
        };
        self.alone(|pid| pid == serving, "the old process does not answer").await?;
        let longest_wait = self.load.book().take_longest_lately();
        let words = told.status_text.as_deref().and_then(Reason::from_status).map(|reason| reason.text);
        // What follows says where to read on, in a log that nobody will have.
        let words = words.as_deref().and_then(|words| words.split(';').next()).unwrap_or_default().to_owned();
        let took = took(&told);
        let reason = told.reason.unwrap_or_else(|| "no reason".to_owned());
        self.tell(at, What::Failed { serving, reason, words, took, longest_wait });
        Ok(())
    }

    async fn kill(&self) -> Result<(), String> {
        let old = self.alone(|_| true, "no process answers all sessions").await?;
        let cannot = |error: std::io::Error| format!("cannot kill {old}: {error}");
        let process = Process::find(old).map_err(cannot)?;
        let visits = self.load.without_visitors().await;
        let pause = Instant::now();
        let at = self.begin.elapsed();
        self.load.book().killed(old, at);
        process.signal(Signal::SIGKILL).map_err(cannot)?;
        process.ends().await.map_err(cannot)?;
        drop(visits);
        let aside = pause.elapsed();
        let new = self.alone(|pid| pid != old, "nobody answers all sessions after kill -9").await?;
        let silence = self.load.book().outage().unwrap_or_default();
        self.tell(at, What::Killed { old, new, silence, aside });
        Ok(())
    }

    /// Waits until one process serves all sessions, and it is the right one.
    async fn alone(&self, right: impl Fn(u32) -> bool, otherwise: &str) -> Result<u32, String> {
        let until = (Instant::now() + PATIENCE).into();
        loop {
            // From now on, so that nothing is missed that comes after the look.
            let more = self.load.more();
            let (alone, lost) = {
                let book = self.load.book();
                (book.alone().filter(|pid| right(*pid)), book.all_is_lost())
            };
            match alone {
                Some(pid) => return Ok(pid),
                None if lost => return Err("no session is left".to_owned()),
                None => timeout_at(until, more).await.map_err(|_| otherwise.to_owned())?,
            }
        }
    }
}

/// How long `handover upgrade` says that it took.
fn took(told: &Told) -> Duration {
    told.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

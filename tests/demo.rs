//! The main job, before your eyes: a real systemd, the sample service under load, ten upgrades and one
//! that fails, and what the clients saw; then sessions that go on over restarts and kill -9. `tests/demo`
//! builds and runs it.
//!
//! It only tells what happened: each line is written when its upgrade has ended, and all counts are the
//! clients' own. Exit 0 means that nothing was lost, that ten upgrades took place and that one did not.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

use serde::Deserialize;

use lab::{Machine, Systemd};
use load::{Client, Load, Sight, Tally};
use sessions::{Address, Sessions};

mod lab {
    #[expect(dead_code, reason = "the demo needs less of a machine than tests do")]
    mod machine;
    pub(crate) use machine::{Machine, Systemd, executable};
}
#[expect(dead_code, reason = "the demo needs less of a connection than tests do")]
mod load;
#[expect(dead_code, reason = "the demo tells what it saw, and asserts nothing")]
mod sessions;

/// What `web.socket` listens on.
const ADDRESS: &str = "127.0.0.1:8080";

const CLIENTS: [Client; 4] =
    [Client::NewConnection, Client::KeepAlive, Client::NewConnection, Client::KeepAlive];

/// How many requests each process answers at least, before the next upgrade.
const BETWEEN: u64 = 5000;

/// Good upgrades before the bad one, and after it.
const GOOD: usize = 5;

/// A new version with a mistake: it ends while it initialises.
const BROKEN: &str = "#!/bin/sh\necho 'web: no such setting' >&2\nexit 1\n";

const WEB: &str = "/usr/bin/web";

/// What `keeper.socket` listens on, and how many hold a connection.
const KEEPER: &str = "127.0.0.1:7070";
const SESSIONS: usize = 50;

/// What happens to it, and how often.
const BLOWS: [(usize, &str, &[&str]); 3] = [
    (5, "systemctl reload", &["systemctl", "reload", "keeper"]),
    (5, "systemctl restart", &["systemctl", "restart", "keeper"]),
    (5, "kill -9", &["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "keeper"]),
];

fn main() -> ExitCode {
    let ink = Ink { colours: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    let machine = boot();
    introduce(&machine);
    let load = Load::start(&machine, ADDRESS, &CLIENTS);

    let mut went_well = true;
    for number in 1..=2 * GOOD {
        went_well &= upgrade(&machine, &load, &ink, &number.to_string(), "switched");
        if number == GOOD {
            machine.succeed(&["cp", "--preserve", WEB, "/root/good"]);
            machine.push(WEB, BROKEN, 0o755);
            went_well &= upgrade(&machine, &load, &ink, "bad", "failed");
            machine.succeed(&["mv", "/root/good", WEB]);
        }
    }
    let tally = load.stop();
    sum_up(&tally, &ink);
    went_well &= tally.failures.is_empty();
    went_well &= keep_sessions(&machine, &ink);
    if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A machine in which the service runs, installed as its units say.
fn boot() -> Machine {
    let handover = lab::executable().with_file_name("../handover");
    let web = lab::executable().with_file_name("web");
    let keeper = lab::executable().with_file_name("keeper");
    let machine = Machine::with(Systemd::V257).bind(handover, "/usr/bin/handover").copy(web, WEB);
    let machine = machine.copy(keeper, "/usr/bin/keeper").boot();
    machine.units(&[
        ("web.socket", include_str!("../units/web.socket")),
        ("web.service", include_str!("../units/web.service")),
    ]);
    machine.succeed(&["systemctl", "start", "web.socket", "web.service"]);
    machine
}

fn introduce(machine: &Machine) {
    let version = machine.succeed(&["systemctl", "--version"]);
    let version = version.lines().next().unwrap_or_default();
    println!("In a machine with {version}, web.service is upgraded by");
    println!(
        "`handover upgrade web` while {} clients ask it as fast as they can, half of them",
        CLIENTS.len()
    );
    println!("with a new connection for each request, half with keep-alive. None ever retries.\n");
    println!("upgrade   served by                 upgraded in   answered while the command ran");
}

/// What `handover upgrade --json` says, as far as it is told here.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    old_pid: Option<u32>,
    serving_pid: Option<u32>,
    seconds: Option<f64>,
    message: String,
}

/// Upgrades the service and says in a line how that went; whether it went as `expected`.
fn upgrade(machine: &Machine, load: &Load, ink: &Ink, name: &str, expected: &str) -> bool {
    let before = load.answered();
    let said = machine.run(&["handover", "upgrade", "--json", "web"]);
    let meanwhile = load.answered() - before;
    load.pass(BETWEEN);
    let Ok(report) = serde_json::from_str::<Report>(&said.stdout) else {
        println!("{name:>7}   {}", ink.bad(&format!("no report: {said:?}")));
        return false;
    };
    let pid = |pid: Option<u32>| pid.map_or_else(|| "nobody".into(), |pid| format!("pid {pid}"));
    let (old, serving) = (pid(report.old_pid), pid(report.serving_pid));
    let served = if old == serving { format!("{serving} still") } else { format!("{old} -> {serving}") };
    let milliseconds = report.seconds.unwrap_or_default() * 1000.0;
    println!("{name:>7}   {served:<24} {milliseconds:>8.1} ms   {meanwhile:>11} requests");
    let as_expected = report.outcome == expected;
    match (as_expected, expected) {
        (true, "switched") => {}
        (true, _) => println!("{}", ink.noted(&indent(&report.message))),
        (false, _) => {
            println!("{}", ink.bad(&indent(&format!("{expected} was expected; {}", report.message))))
        }
    }
    as_expected
}

/// Sessions that outlive the process which accepted them; whether nothing was lost.
fn keep_sessions(machine: &Machine, ink: &Ink) -> bool {
    machine.units(&[
        ("keeper.socket", include_str!("../units/keeper.socket")),
        ("keeper.service", include_str!("../units/keeper.service")),
    ]);
    machine.succeed(&["systemctl", "start", "keeper.socket", "keeper.service"]);
    println!(
        "\n{SESSIONS} clients of keeper.service hold one connection each, and count what they are told."
    );
    let sessions = Sessions::open(machine, vec![Address::Tcp(KEEPER); SESSIONS]);
    for (times, what, command) in BLOWS {
        for _ in 0..times {
            let done = machine.run(command);
            if done.status != 0 {
                println!("{}", ink.bad(&indent(&format!("{what}; {done:?}"))));
                return false;
            }
            sessions.pass_each(3);
        }
        println!("{times:>7} x {what:<40} every session goes on");
    }
    let tally = sessions.stop();
    println!("\nWhat the clients saw");
    println!(
        "  answered   {} requests on {SESSIONS} connections, by {} processes",
        tally.answers,
        tally.pids.len()
    );
    println!("  slowest    {:.1} ms", tally.stall.as_secs_f64() * 1000.0);
    tally.failures.iter().take(10).for_each(|failure| println!("{}", ink.bad(&indent(failure))));
    match tally.failures.len() {
        0 => println!("{}", ink.good("No connection was closed, no acknowledged write lost or done twice.")),
        lost => println!("{}", ink.bad(&format!("{lost} sessions lost something."))),
    }
    tally.failures.is_empty()
}

/// A long sentence, each part of it in a line of its own, below the table's second column.
fn indent(sentence: &str) -> String {
    sentence.split("; ").map(|part| format!("          {part}")).collect::<Vec<_>>().join(";\n")
}

/// What the clients saw.
fn sum_up(tally: &Tally, ink: &Ink) {
    let Tally { requests, connections, closes, failures, pids, slowest } = tally;
    let saw = |sight| failures.iter().filter(|loss| loss.sight == sight).count();
    let (refused, reset, cut) = (saw(Sight::Refused), saw(Sight::Reset), saw(Sight::Cut));
    let (late, other) = (saw(Sight::Late), saw(Sight::Wrong) + saw(Sight::Other));
    println!("\nWhat the clients saw");
    println!("  answered   {requests} requests on {connections} connections, by {} processes", pids.len());
    println!("  kept       all but {closes} connections that the service ended between two requests");
    println!("  lost       {refused} refused, {reset} reset, {cut} cut, {late} timed out, {other} wrong");
    println!("  slowest    {:.1} ms", slowest.as_secs_f64() * 1000.0);
    for loss in failures.iter().take(10) {
        println!("{}", ink.bad(&indent(&loss.to_string())));
    }
    match failures.len() {
        0 => println!("{}", ink.good("Nothing was lost.")),
        lost => println!("{}", ink.bad(&format!("{lost} lost."))),
    }
}

/// Colours, where a person looks on.
struct Ink {
    colours: bool,
}

impl Ink {
    fn good(&self, text: &str) -> String {
        self.paint(32, text)
    }

    fn noted(&self, text: &str) -> String {
        self.paint(33, text)
    }

    fn bad(&self, text: &str) -> String {
        self.paint(31, text)
    }

    fn paint(&self, colour: u8, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[m") } else { text.to_owned() }
    }
}

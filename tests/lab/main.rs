//! `lab`: the executable behind the machines that the integration tests use: a real systemd as PID 1
//! in namespaces of its own, over a root tree of Debian's; or its stand-in, over the host's own /usr. No virtual
//! machine, no daemon, no `unsafe`.
//!
//! ```text
//! a test --its end of a pipe--> lab boot --PDEATHSIG--> PID 1 --pid namespace--> all inside
//! ```
//!
//! Each arrow kills what it points to when its left side goes, however it goes: a killed test leaves
//! no process, mount, network or cgroup behind. A machine never writes to the host: its files are an
//! overlay in memory, the host's kernel settings are read-only to it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and tests")]

mod apt;
mod boot;
mod cgroup;
mod enter;
mod init;
mod journal;
#[expect(dead_code, reason = "people need less of a machine than tests do")]
mod machine;
mod needs;
mod permit;
mod roots;
mod standin;
mod systemd;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use machine::Machine;
use roots::Tree;
use systemd::Systemd;

const USAGE: &str = "\
lab build [SYSTEMD|programs]...           build the root trees that are missing, by default all
lab run SYSTEMD [OPTION]... -- COMMAND    boot a machine, run COMMAND in it, destroy it
lab boot SYSTEMD [OPTION]...              boot a machine, print `ready PID CGROUP`, destroy it at EOF or SIGTERM
lab exec PID [--user USER] -- COMMAND     run COMMAND in the machine whose PID 1 is PID on this host
lab kernel                                print the path of a kernel for virtual machines, fetched if it is missing
lab missing [SYSTEMD [--programs]]        say what this host lacks for machines; exit 1 if anything

SYSTEMD is V252, V257, V262, or Standin, which needs no tree; OPTION is --bind HOST:PATH (read-only) or --copy HOST:PATH,
for files; --tree FOLDER, whose files are copied to the same places inside, links as links; or --programs: V257 and
Standin stand on a tree with more servers than the others have.
Root trees are kept in $HANDOVER_LAB_CACHE, by default /var/cache/handover-lab.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("lab: {why}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[String]) -> Result<ExitCode, String> {
    let (verb, rest) = words.split_first().ok_or(USAGE)?;
    match verb.as_str() {
        "build" => build(rest).map(|()| ExitCode::SUCCESS),
        "boot" => boot::run(&Plan::parse(rest)?),
        "init" => Err(init::run(rest)),
        "exec" => enter::run(rest),
        "run" => run(&Plan::parse(rest)?),
        "kernel" => {
            println!("{}", roots::kernel()?.display());
            Ok(ExitCode::SUCCESS)
        }
        "missing" => missing(rest),
        _ => Err(USAGE.into()),
    }
}

/// Builds the trees of those named, or of all.
fn build(names: &[String]) -> Result<(), String> {
    let tree = |name: &String| match name.as_str() {
        "programs" => Ok(Tree::Programs),
        systemd => systemd.parse().map(Tree::Of),
    };
    let named: Vec<_> = names.iter().map(tree).collect::<Result<_, _>>()?;
    roots::build_all(if named.is_empty() { &Tree::ALL } else { &named })
}

/// Says what is missing for machines with this PID 1, or with any.
fn missing(words: &[String]) -> Result<ExitCode, String> {
    let missing = match words {
        [] => needs::missing(&Systemd::ALL.map(Tree::Of)),
        _ => needs::missing(&[Plan::parse(words)?.tree()]),
    };
    let said = missing.map(|what| println!("{what}"));
    Ok(said.map_or(ExitCode::SUCCESS, |()| ExitCode::FAILURE))
}

/// Boots what `plan` says, runs its command with our own standard streams, and passes its exit code on.
fn run(plan: &Plan) -> Result<ExitCode, String> {
    let command: Vec<&str> = plan.command.iter().map(String::as_str).collect();
    if command.is_empty() {
        return Err(USAGE.into());
    }
    let mut machine = Machine::with(plan.systemd);
    if plan.programs {
        machine = machine.with_programs();
    }
    for (host, path) in &plan.binds {
        machine = machine.bind(host, path);
    }
    for (host, path) in &plan.copies {
        machine = machine.copy(host, path);
    }
    if let Some(folder) = &plan.folder {
        machine = machine.tree(folder);
    }
    let machine = machine.boot();
    eprintln!("lab: ready {} {}", machine.pid1(), machine.cgroup().display());
    let status = machine.command(&command).stdin(Stdio::inherit()).status().doing("lab exec")?;
    Ok(enter::exit_code(status))
}

/// What a machine is to be, as the command line says it.
struct Plan {
    systemd: Systemd,
    /// See [`Tree::new`].
    programs: bool,
    /// Host file, path inside; read-only and the same file.
    binds: Vec<(PathBuf, String)>,
    /// Host file, path inside; the machine's own copy.
    copies: Vec<(PathBuf, String)>,
    /// Host folder whose contents are copied over the machine's own.
    folder: Option<PathBuf>,
    command: Vec<String>,
    /// All of the above in the words it came in, for the next process of the chain.
    words: Vec<String>,
}

impl Plan {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut rest = words.iter();
        let systemd = rest.next().ok_or(USAGE)?.parse()?;
        let (mut binds, mut copies) = (Vec::new(), Vec::new());
        let (mut programs, mut folder) = (false, None);
        while let Some(word) = rest.next() {
            let list = match word.as_str() {
                "--bind" => &mut binds,
                "--copy" => &mut copies,
                "--programs" => {
                    programs = true;
                    continue;
                }
                "--tree" => {
                    let path = rest.next().ok_or("--tree wants FOLDER")?;
                    folder = Some(PathBuf::from(path).canonicalize().doing(path)?);
                    continue;
                }
                "--" => break,
                _ => return Err(format!("{word}: not an option\n{USAGE}")),
            };
            let pair = rest.next().and_then(|pair| pair.split_once(':'));
            let (host, path) = pair.ok_or_else(|| format!("{word} wants HOST:PATH"))?;
            let host = PathBuf::from(host).canonicalize().doing(host)?;
            list.push((host, path.trim_start_matches('/').to_owned()));
        }
        let command = rest.cloned().collect();
        Ok(Self { systemd, programs, binds, copies, folder, command, words: words.to_vec() })
    }

    /// What the machine stands on.
    fn tree(&self) -> Tree {
        Tree::new(self.systemd, self.programs)
    }
}

/// Says what was being done when an error came.
trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T, String>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, String> {
        self.map_err(|why| format!("{what}: {why}"))
    }
}

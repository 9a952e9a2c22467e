//! Questions for whoever sits at the terminal: one line each, with what an empty answer stands for.

use std::io::{self, BufRead, IsTerminal, Write};

use super::text::Kind;

/// Somebody who can be asked. What is said to them goes to stderr: stdout is for the units.
pub(super) struct Asker(());

impl Asker {
    /// `None` where nobody sits.
    pub(super) fn find() -> Option<Self> {
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(Self(()))
    }

    /// What kind of program it is.
    pub(super) fn kind(&self) -> io::Result<Kind> {
        let question = "What is the program?\n  1  built on the library of handover\n  2  takes its sockets by \
                        LISTEN_FDS (sd_listen_fds)\n  3  knows nothing of this, and binds its address itself\n\
                        1, 2 or 3";
        self.until(question, "3", |answer| match answer {
            "1" => Some(Kind::Library),
            "2" => Some(Kind::Activation),
            "3" => Some(Kind::Unmodified),
            _ => None,
        })
    }

    /// How it is started.
    pub(super) fn exec(&self, name: &str) -> io::Result<String> {
        let own = format!("/usr/bin/{name}");
        self.until("Its command, with an absolute path", &own, |answer| Some(answer.to_owned()))
    }

    /// Where it listens.
    pub(super) fn listen(&self) -> io::Result<Vec<String>> {
        let question = "Where clients come (8080, 127.0.0.1:8080, /run/x.sock; several with spaces)";
        self.until(question, "8080", |answer| Some(answer.split_whitespace().map(str::to_owned).collect()))
    }

    /// Whether there is to be a sandbox.
    pub(super) fn hardening(&self) -> io::Result<bool> {
        self.until("A sandbox around it, with a user of its own? y or n", "y", |answer| match answer {
            "y" | "yes" => Some(true),
            "n" | "no" => Some(false),
            _ => None,
        })
    }

    /// Asks until the answer makes sense. Errors: `UnexpectedEof` if there is none.
    fn until<T>(&self, question: &str, usual: &str, read: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        loop {
            write!(io::stderr(), "{question} [{usual}]: ")?;
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let answer = Some(line.trim()).filter(|answer| !answer.is_empty()).unwrap_or(usual);
            if let Some(answer) = read(answer) {
                return Ok(answer);
            }
        }
    }
}

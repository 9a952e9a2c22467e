//! The beginning and the end: sockets first, then services; services first, then sockets.

use std::time::Duration;

use super::Activation;
use super::jobs::{Installed, Kind};
use super::sockets::{State, clash};
use super::standin::Standin;

/// How long the last words of services that have stopped may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Standin {
    /// Reads the units, opens all sockets, and starts what is to be started.
    pub(super) fn start(&mut self, activation: Activation) {
        if self.load(&self.paths.clone()) == 0 {
            self.around.output.say("there are no units yet; daemon-reload reads them again");
        }
        for at in 0..self.sockets.len() {
            self.open(at);
        }
        for id in 0..self.services.len() {
            if self.starts_at_once(id, activation) {
                self.install(id, Installed::new(Kind::Start));
            }
        }
    }

    /// Whether a service starts without traffic.
    fn starts_at_once(&self, id: usize, activation: Activation) -> bool {
        let Some(service) = self.services.get(id) else { return false };
        let sockets = || self.sockets.iter().filter(|socket| socket.service() == service.name);
        if sockets().any(|socket| socket.state == State::Failed) {
            let text = "it is not started, because its sockets could not be opened";
            self.around.output.say_of(&service.name, text);
            return false;
        }
        let common = &service.settings.common;
        let wanted = !(common.wanted_by.is_empty() && common.required_by.is_empty());
        match activation {
            _ if sockets().next().is_none() => true,
            Activation::AsInstalled => wanted,
            Activation::Now => true,
            Activation::OnTraffic => false,
        }
    }

    /// Opens the sockets of a unit, and waits for traffic on them. The error is a sentence, and was said.
    pub(super) fn open(&mut self, at: usize) -> bool {
        let Some(socket) = self.sockets.get_mut(at) else { return false };
        match socket.open() {
            Ok(without) => {
                without.iter().for_each(|why| self.around.output.say_of(&socket.name, why));
                socket.listen(&self.around.traffic);
                self.tell_shared(at);
                true
            }
            Err(why) => {
                socket.close(State::Failed, "resources", &self.around.traffic);
                let why = match self.in_the_way(at) {
                    Some(other) => format!("{why}: {other} has it"),
                    None => why,
                };
                if let Some(socket) = self.sockets.get(at) {
                    self.around.output.say_of(&socket.name, &why);
                }
                false
            }
        }
    }

    /// Says who else has an address of a unit that is open: of datagrams the kernel lets two have one.
    fn tell_shared(&self, at: usize) {
        let Some(socket) = self.sockets.get(at).filter(|socket| !socket.settings.reuse_port) else { return };
        if let Some(other) = self.in_the_way(at) {
            let text = format!("{other} has an address of this, too, and chance says who is served");
            self.around.output.say_of(&socket.name, &text);
        }
    }

    /// The line of another unit of ours that has an address which this unit wants.
    fn in_the_way(&self, at: usize) -> Option<String> {
        let wanted = &self.sockets.get(at)?.settings.listen;
        let others = self.sockets.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, other)| other).find_map(|other| {
            let line = other.addresses().find(|theirs| wanted.iter().any(|ours| clash(ours, theirs)))?;
            Some(format!("{} ({})", other.name, line.place))
        })
    }

    /// Everything has stopped: closes the sockets and lets the last words be read.
    pub(super) async fn leave(mut self) {
        for socket in &mut self.sockets {
            socket.close(State::Dead, "success", &self.around.traffic);
        }
        let readers: Vec<_> = self.services.iter_mut().filter_map(|service| service.take_output()).collect();
        let all = async {
            for reader in readers {
                // A reader that failed has nothing to say any more.
                let _ = reader.await;
            }
        };
        // A process that was left behind may hold its output for ever.
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
        self.around.output.say("all services have stopped");
    }
}

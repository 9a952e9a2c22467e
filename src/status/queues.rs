//! The addresses of a service, and who waits there; and what its FD store holds, like with like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::manager::facts::{SocketUnit, Stored};
use crate::sys::diag::{Listener, Place, listeners};

/// An address of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Queue {
    /// The socket unit.
    pub unit: String,
    /// ActiveState= of that.
    pub active: String,
    /// Where it listens, as systemd writes it.
    pub address: String,
    /// How many sockets there are at the address.
    pub slots: usize,
    /// Connections that nobody has accepted yet, at all of them; `None` where that cannot be seen.
    pub waiting: Option<u32>,
    /// How many may wait at each.
    pub most: Option<u32>,
}

/// The addresses of these units, with who waits there if that is on this machine.
pub(super) fn of(units: &[SocketUnit], is_local: bool) -> Vec<Queue> {
    let known = if is_local { listeners().unwrap_or_default() } else { Vec::new() };
    join(units, &known)
}

/// Finds the listeners of each address.
fn join(units: &[SocketUnit], known: &[Listener]) -> Vec<Queue> {
    let mut queues: Vec<Queue> = Vec::new();
    for unit in units {
        for (kind, address) in &unit.listen {
            if let Some(queue) =
                queues.iter_mut().find(|one| one.unit == unit.unit && one.address == *address)
            {
                queue.slots += 1;
                continue;
            }
            let place = Some(address)
                .filter(|_| matches!(&**kind, "Stream" | "SequentialPacket"))
                .and_then(|one| place(one));
            let here: Vec<_> = known.iter().filter(|one| Some(&one.place) == place.as_ref()).collect();
            queues.push(Queue {
                unit: unit.unit.clone(),
                active: unit.active.clone(),
                address: address.clone(),
                slots: 1,
                waiting: (!here.is_empty()).then(|| here.iter().map(|one| one.waiting).sum()),
                most: here.first().map(|one| one.most),
            });
        }
    }
    queues
}

/// An address as systemd writes it.
fn place(text: &str) -> Option<Place> {
    match text.as_bytes() {
        [b'/', ..] => Some(Place::Unix(text.into())),
        [b'@', name @ ..] => Some(Place::Unix([b"\0", name].concat())),
        _ => text.parse::<SocketAddr>().ok().map(Place::Inet),
    }
}

/// Entries of a store, those that differ in what is behind the last dot or dash as one.
pub(super) fn together(stored: &[Stored]) -> Vec<(String, String, usize)> {
    let mut stems: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    // What is handover's own has a meaning each.
    let stem = |name: &str| match name.rfind(['.', '-']) {
        Some(at) if &name[..=at] != "handover." => at + 1,
        _ => name.len(),
    };
    for one in stored {
        *stems.entry((&one.name[..stem(&one.name)], &one.kind)).or_default() += 1;
    }
    let full = |stem: &str, kind: &str| {
        stored.iter().find(|one| one.name.starts_with(stem) && one.kind == kind).map(|one| one.name.clone())
    };
    let entry = |((stem, kind), count): (&(&str, &str), &usize)| {
        let name = if *count == 1 { full(stem, kind) } else { None };
        let several = if stem.ends_with(['.', '-']) { format!("{stem}*") } else { (*stem).to_owned() };
        (name.unwrap_or(several), (*kind).to_owned(), *count)
    };
    stems.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_with_all_its_sockets() {
        let listen = |address: &str| ("Stream".to_owned(), address.to_owned());
        let unit = SocketUnit {
            unit: "web.socket".into(),
            active: "active".into(),
            listen: vec![listen("[::]:80"), listen("[::]:80"), listen("@x"), listen("/run/gone")],
        };
        let at = |place, waiting| Listener { place, waiting, most: 4096 };
        let everywhere = Place::Inet("[::]:80".parse().unwrap());
        let known = [at(everywhere.clone(), 2), at(everywhere, 3), at(Place::Unix(b"\0x".to_vec()), 1)];
        let queues = join(&[unit], &known);
        let seen: Vec<_> =
            queues.iter().map(|one| (&*one.address, one.slots, one.waiting, one.most)).collect();
        let wanted = [
            ("[::]:80", 2, Some(5), Some(4096)),
            ("@x", 1, Some(1), Some(4096)),
            ("/run/gone", 1, None, None),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn like_is_told_with_like() {
        let stored = |name: &str, kind: &str| Stored { name: name.into(), kind: kind.into() };
        let all = ["ho.1", "ho.2", "ho.z"].map(|name| stored(name, "socket"));
        let all = [
            &all[..],
            &[stored("handover.state", "memfd"), stored("handover.record", "memfd"), stored("plain", "pipe")],
        ]
        .concat();
        let entry = |name: &str, kind: &str, count| (name.to_owned(), kind.to_owned(), count);
        let wanted = [
            entry("handover.record", "memfd", 1),
            entry("handover.state", "memfd", 1),
            entry("ho.*", "socket", 3),
            entry("plain", "pipe", 1),
        ];
        assert_eq!(together(&all), wanted);
    }
}

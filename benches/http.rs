//! What it costs that HTTP connections move: a request beside plain axum, a request while an upgrade is under
//! way, and all connections of a large service at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::request;
use crate::service::Service;
use crate::table::{Row, Table, median, milliseconds, quantile};

/// Upgrades under load, and clients that make it: each asks as soon as it has its answer.
const UPGRADES: usize = 200;
const BUSY: usize = 16;

/// Idle connections, and how often they are moved.
const IDLE: usize = 10_000;
const ROUNDS: usize = 15;

/// All of it.
pub(crate) fn measure(table: &mut Table) {
    request::compare(table, request::AXUM);
    under_load(table);
    idle(table);
}

/// A request, by when it was sent.
type Asked = (Instant, Duration);

/// What a request takes while an upgrade is under way, and just before one.
fn under_load(table: &mut Table) {
    let mut service = Service::start_of("http-load", "axum_moving", "");
    let (address, stop) = (service.address, AtomicBool::new(false));
    let client = || {
        let mut clients: Vec<_> = (0..BUSY).map(|_| Connection::open(address)).collect();
        let mut asked: Vec<Asked> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for client in &mut clients {
                let begin = Instant::now();
                client.ask();
                asked.push((begin, begin.elapsed()));
            }
        }
        asked
    };
    let (asked, windows) = std::thread::scope(|scope| {
        let client = scope.spawn(client);
        let windows: Vec<_> = (0..UPGRADES)
            .map(|_| {
                let steady = Instant::now();
                std::thread::sleep(Duration::from_millis(10));
                let upgrade = service.upgrade();
                (steady, upgrade.asked, Instant::now())
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        (client.join().expect("the client panicked"), windows)
    });
    let took = |from: fn(&(Instant, Instant, Instant)) -> (Instant, Instant)| {
        let mut windows = windows.iter().map(from).peekable();
        let inside = |(begin, _): &&Asked| {
            while windows.next_if(|(_, end)| end <= begin).is_some() {}
            windows.peek().is_some_and(|(start, _)| start <= begin)
        };
        asked.iter().filter(inside).map(|(_, took)| *took).collect::<Vec<_>>()
    };
    let steady = took(|(steady, asked, _)| (*steady, *asked));
    let upgrading = took(|(_, asked, done)| (*asked, *done));
    let [calm, worst] = [&steady, &upgrading].map(|took| quantile(took, 0.999));
    table.add(&Row {
        what: "request during an upgrade, 99.9 %",
        measured: milliseconds(worst),
        beside: format!("{} before it", milliseconds(calm)),
        ratio: None,
        bound: Some(("<= + 2 ms", worst <= calm + Duration::from_millis(2))),
    });
    let [calm, usual] = [&steady, &upgrading].map(|took| quantile(took, 0.5));
    table.add(&Row {
        what: "  the median",
        measured: milliseconds(usual),
        beside: format!("{} before it", milliseconds(calm)),
        ratio: None,
        bound: None,
    });
}

/// From the request for an upgrade until the new process has answered on every connection.
fn idle(table: &mut Table) {
    let mut empty = Service::start_of("http-none", "axum_moving", "");
    let mut service = Service::start_of("http-idle", "axum_moving", "");
    let mut clients: Vec<_> = (0..IDLE).map(|_| Connection::open(service.address)).collect();
    ask_all(&mut clients, service.main());
    let (mut none, mut switched, mut served, mut quiet) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let upgrade = empty.upgrade();
        none.push(upgrade.switched - upgrade.asked);
        let begin = Instant::now();
        ask_all(&mut clients, service.main());
        quiet.push(begin.elapsed());
        let (upgrade, done) = service.upgrade_and(|new| {
            ask_all(&mut clients, new);
            Instant::now()
        });
        switched.push(upgrade.switched - upgrade.asked);
        served.push(done - upgrade.asked);
    }
    let [none, switched, served, quiet] = [none, switched, served, quiet].map(|times| median(&times));
    table.add(&Row {
        what: "moving 10,000 idle HTTP connections, before the commit",
        measured: milliseconds(switched.saturating_sub(none)),
        beside: String::new(),
        ratio: None,
        bound: None,
    });
    table.add(&Row {
        what: "  from the request until all were answered",
        measured: milliseconds(served),
        beside: format!("{} without upgrade", milliseconds(quiet)),
        ratio: None,
        bound: Some(("< 1 s", served < Duration::from_secs(1))),
    });
}

/// One request on each connection at once; all answered by `main`.
fn ask_all(clients: &mut [Connection], main: i32) {
    clients.iter_mut().for_each(|client| client.send(false));
    for client in clients {
        assert_eq!(client.answer(false), main.cast_unsigned(), "the new process answers");
    }
}

//! What it costs to start with connections and their state that PID 1 kept, and to save that state.
//!
//! The first save of a connection asks the kernel for its memory, once for each of the two slots: about
//! 2 µs. What is measured is every save after that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::store::Store;
use crate::table::{Row, Table, median, milliseconds};

/// How many connections there are, and how often each start is measured.
const SIZES: [usize; 3] = [100, 250, 500];
const PROMISED: usize = 500;
const ROUNDS: usize = 31;

/// How often the million saves of the sample `live` are measured.
const SAVES: usize = 7;

/// Starts with each number of connections, then saves.
pub(crate) fn measure(table: &mut Table) {
    for connections in SIZES {
        let (mut store, mut clients) = (Store::new(&format!("store-{connections}")), Vec::new());
        let ((mut first, address), _) = store.start(true);
        for _ in 0..connections {
            clients.push(TcpStream::connect(address).expect("connect"));
        }
        ask(&mut clients);
        store.until_answered(&mut clients);
        end(&mut first);
        restore(table, &mut store, &mut clients);
        if connections == PROMISED {
            let ((mut service, _), _) = store.start(false);
            save(table, &mut service, &mut clients[0]);
            end(&mut service);
        }
    }
}

/// Starts with and without what is held, in turns.
fn restore(table: &mut Table, store: &mut Store, clients: &mut [TcpStream]) {
    let mut other = Store::new("store-without");
    let (mut without, mut with, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ((mut service, _), took) = other.start(true);
        without.push(took);
        end(&mut service);
        // As it is for clients: they ask, and nobody is there.
        ask(clients);
        let ((mut service, _), took) = store.start(false);
        let ready = Instant::now();
        with.push(took);
        served.push(took + (store.until_answered(clients) - ready));
        end(&mut service);
    }
    let [without, with, served] = [without, with, served].map(|times| median(&times));
    let within = with <= without.mul_f64(1.2) + Duration::from_millis(5);
    let promised = clients.len() == PROMISED;
    table.add(&Row {
        what: &format!(
            "start with {} connections, {} KiB of state",
            clients.len(),
            clients.len() * 1024 / 500
        ),
        measured: milliseconds(with),
        beside: format!("{} without them", milliseconds(without)),
        ratio: Some(with.as_secs_f64() / without.as_secs_f64()),
        bound: promised.then_some(("1.2+5 ms", within)),
    });
    table.add(&Row {
        what: "  until all were answered",
        measured: milliseconds(served),
        beside: String::new(),
        ratio: None,
        bound: None,
    });
}

/// The state of a connection that PID 1 holds.
fn save(table: &mut Table, service: &mut Child, client: &mut TcpStream) {
    // Nanoseconds of a million are picoseconds of one.
    let times: Vec<u64> = (0..SAVES).map(|_| request(client, b's')).collect();
    assert!(!times.contains(&0), "each can be saved");
    let save = median(&times) as f64 / 1e9;
    table.add(&Row {
        what: "saving 1 KiB of a connection's state",
        measured: format!("{save:.3} µs"),
        beside: String::new(),
        ratio: None,
        bound: Some(("< 2 µs", save < 2.0)),
    });
    let calls = [b'p', b's'].map(|byte| calls(service, || assert_ne!(request(client, byte), 0)));
    let [Some(none), Some(million)] = calls else {
        return table.skip("  system calls of a million saves", "strace cannot watch the service");
    };
    table.add(&Row {
        what: "  system calls of a million saves",
        measured: million.to_string(),
        beside: format!("{none} of a request alone"),
        ratio: None,
        // Where in its work strace lets go of the service is chance.
        bound: Some(("< 10", million < none + 10)),
    });
}

/// How many system calls the service makes during `work`, as strace counts them.
fn calls(service: &Child, work: impl FnOnce()) -> Option<u32> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-p", &service.id().to_string()]).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut strace = strace.spawn().ok()?;
    let mut said = strace.stderr.take().expect("stderr is piped");
    // The first it says is that it is attached, or why not.
    let mut buffer = [0; 64 << 10];
    let len = said.read(&mut buffer).expect("what strace says");
    if !String::from_utf8_lossy(&buffer[..len]).contains(" attached") {
        let _ = strace.wait();
        return None;
    }
    work();
    let pid = nix::unistd::Pid::from_raw(strace.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("end strace");
    let mut text = String::from_utf8_lossy(&buffer[..len]).into_owned();
    said.read_to_string(&mut text).expect("what strace says");
    strace.wait().expect("the end of strace");
    let calls = text.lines().filter(|line| line.contains(") = ") || line.contains("resumed>")).count();
    u32::try_from(calls).ok()
}

fn request(client: &mut TcpStream, byte: u8) -> u64 {
    client.write_all(&[byte]).expect("send a request");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).expect("an answer");
    u64::from_le_bytes(answer)
}

fn ask(clients: &mut [TcpStream]) {
    clients.iter_mut().for_each(|client| client.write_all(b"p").expect("send a request"));
}

fn end(service: &mut Child) {
    service.kill().and_then(|()| service.wait()).expect("end the service");
}

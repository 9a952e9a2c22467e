//! `stranger`: an HTTP server that knows nothing of handover, of systemd, of signals. `stranger PORT` binds that
//! port of all IPv4 addresses, as any program does, and answers with the files of its working directory.
//!
//! The scenarios of `handover run` start hundreds of generations: python's own server, which is in some of them,
//! is a processor's business for a while each time.
#![allow(clippy::expect_used, reason = "a sample")]

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: stranger PORT");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind");
    for client in listener.incoming().flatten() {
        // A client that went away is no news.
        std::thread::spawn(move || answer(client));
    }
}

/// One request, one answer, and the end.
fn answer(client: TcpStream) -> Result<()> {
    let mut head = BufReader::new(&client).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or("/");
    let name = Some(path.trim_start_matches('/')).filter(|name| !name.is_empty()).unwrap_or("index.html");
    let file = std::fs::read(Path::new(".").join(name));
    let (status, body) = file.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    write!(&client, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    (&client).write_all(&body)
}

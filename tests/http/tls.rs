//! TLS that ends in the process: what is under way is answered whole where it is, a client that stays is told
//! politely to come back, and comes to the new process; one that says nothing more hears the end at the
//! deadline. No request is lost.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::load::PATIENCE;
use crate::web::{ADDRESS, Web};

const IDENTITY: &[u8] = include_bytes!("../services/tls.pem");

/// How often the service is upgraded under clients who ask all the time, and how many those are.
const UPGRADES: usize = 10;
const CLIENTS: usize = 8;

on_every_systemd! {
    fn tls_that_ends_in_the_process_drains_politely(systemd) {
        let web = Web::boot_program(systemd, "tls");
        let old = web.main();
        let [mut idle, mut slow] = [(); 2].map(|()| connect(&web));
        for client in [&mut idle, &mut slow] {
            assert_eq!(client.ask("/"), (old.pid, false));
        }
        slow.send("/slow?ms=1000");
        let head = slow.head();
        let new = web.upgrade();
        // A new client is the new process'.
        assert_eq!(connect(&web).ask("/"), (new, false));
        // What had begun goes on to its end. It was begun before anybody knew that it is the last.
        assert_eq!((head.last, slow.pid(&head)), (false, old.pid));
        assert!(!old.has_left(), "it serves those who are still there");
        for mut client in [idle, slow] {
            assert_eq!(client.ask("/"), (old.pid, true), "the answer says that it is the last");
            client.hears_the_end();
        }
        old.leaves();
    }

    fn who_asks_nothing_more_hears_the_end_in_tls_at_the_deadline(systemd) {
        const DEADLINE: Duration = Duration::from_millis(1000);
        let web = Web::boot_program(systemd, "tls");
        web.drop_in(&format!("[Service]\nEnvironment=WEB_DRAIN_MS={}\n", DEADLINE.as_millis()));
        web.upgrade();
        let old = web.main();
        let [mut idle, mut fresh, mut slow] = [(); 3].map(|()| connect(&web));
        // The two have spoken TLS, and nothing in it.
        fresh.0.get_mut().flush().unwrap();
        for client in [&mut idle, &mut slow] {
            assert_eq!(client.ask("/"), (old.pid, false));
        }
        slow.send("/slow?ms=60000");
        slow.head();
        let before = Instant::now();
        web.upgrade();
        [idle, fresh].into_iter().for_each(Client::hears_the_end);
        assert!(before.elapsed() >= DEADLINE, "ended after {:?}", before.elapsed());
        // Who was promised more must not take this for all.
        slow.sees_a_cut();
        old.leaves();
    }

    fn no_request_is_lost_where_tls_ends_in_the_process(systemd) {
        let web = Web::boot_program(systemd, "tls");
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS).map(|number| {
            let stop = Arc::clone(&stop);
            web.machine.network_thread(&format!("tls {number}"), move || ask_until(&stop))
        }).collect();
        for _ in 0..UPGRADES {
            let old = web.main();
            web.upgrade();
            old.leaves();
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (answers, farewells) = client.join().unwrap();
            println!("{systemd}: {answers} answers, {farewells} of them the last of a connection");
            // Once by a process, unless it was gone before this client came to it.
            assert!((1..=UPGRADES).contains(&farewells));
        }
    }
}

/// Asks all the time, and connects anew when told to; how many answers came, and how often it was told.
fn ask_until(stop: &AtomicBool) -> (usize, usize) {
    let (mut client, mut answers, mut farewells) = (Client::connect(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let (_, last) = client.ask("/slow?ms=1");
        answers += 1;
        if last {
            farewells += 1;
            client.hears_the_end();
            client = Client::connect();
        }
    }
    (answers, farewells)
}

fn connect(web: &Web) -> Client {
    web.machine.enter_network(Client::connect)
}

/// A client of HTTP/1.1 over TLS, which sees a connection that ends without a word of TLS.
struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

/// What the head of an answer says.
struct Head {
    /// It is the last one of its connection.
    last: bool,
    /// How long its body is; else it comes in chunks.
    length: Option<usize>,
}

impl Client {
    fn connect() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(IDENTITY).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("web").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(ADDRESS).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(StreamOwned::new(tls, stream)))
    }

    /// Asks; who has answered, and whether that was the last time.
    fn ask(&mut self, path: &str) -> (u32, bool) {
        self.send(path);
        let head = self.head();
        (self.pid(&head), head.last)
    }

    fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The head of an answer.
    fn head(&mut self) -> Head {
        assert_eq!(self.line(), "http/1.1 200 ok");
        let mut head = Head { last: false, length: None };
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("connection", value)) => head.last = value == "close",
                Some(("content-length", value)) => head.length = Some(value.parse().unwrap()),
                Some(_) => {}
                None => return head,
            }
        }
    }

    /// Who has answered, by the body behind this head.
    fn pid(&mut self, head: &Head) -> u32 {
        let mut body = Vec::new();
        loop {
            let length = head.length.unwrap_or_else(|| usize::from_str_radix(&self.line(), 16).unwrap());
            let begin = body.len();
            body.resize(begin + length, 0);
            self.0.read_exact(&mut body[begin..]).unwrap();
            let chunked = head.length.is_none();
            if chunked {
                assert_eq!(self.line(), "");
            }
            if !chunked || length == 0 {
                break;
            }
        }
        let body = String::from_utf8(body).unwrap();
        body.trim_end()
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_else(|| panic!("{body:?}"))
    }

    /// A whole line.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("cut after {line:?}")).to_ascii_lowercase()
    }

    /// The end comes, and is said in TLS (RFC 8446 6.1): without that, reading would fail.
    fn hears_the_end(mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    /// The end comes, and TLS says nothing of it.
    fn sees_a_cut(mut self) {
        let end = self.0.read_to_end(&mut Vec::new());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

//! Clients that other people wrote, as the load: none of them reports an error.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::web::{ADDRESS, Web};

/// How often the service is upgraded meanwhile.
const UPGRADES: usize = 10;

on_every_systemd! {
    fn hypers_client_reports_no_error(systemd) {
        let web = Web::boot(systemd);
        for http2 in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let client = web.machine.network_thread("hyper", move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(hyper_clients(http2, stopped))
            });
            (0..UPGRADES).for_each(|_| _ = web.upgrade());
            stop.store(true, Ordering::Relaxed);
            let answered = client.join().unwrap();
            println!("{systemd}: {answered} answers, HTTP/2: {http2}");
            assert!(answered > 100);
        }
    }

    fn curl_reports_no_error(systemd) {
        let web = Web::boot(systemd);
        let urls = format!("http://{ADDRESS}/slow?ms=1&number=[1-400]");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--noproxy", "*", "-w", "%{num_connects} %{http_code} %{errormsg}\n", &urls]);
        let curl = under_upgrades(&web, curl);
        let told: Vec<_> = curl.lines().filter(|line| line.ends_with(" 200 ")).collect();
        assert_eq!(told.len(), 400, "{curl}");
        // It would connect anew on its own, and say nothing of it.
        assert_eq!(told.iter().filter(|line| **line == "1 200 ").count(), 1, "{curl}");
        for number in 1..=400 {
            assert!(curl.contains(&format!("\nnumber {number}\n")), "{number} was answered:\n{curl}");
        }
    }

    fn wrk_reports_no_error(systemd) {
        let web = Web::boot(systemd);
        let mut wrk = Command::new("nice");
        wrk.args(["wrk", "-t1", "-c32", "-d1s", "--timeout", "5s", &format!("http://{ADDRESS}/")]);
        let wrk = under_upgrades(&web, wrk);
        println!("{systemd}: {wrk}");
        assert!(wrk.contains("Requests/sec"), "{wrk}");
        assert!(!wrk.contains("Socket errors") && !wrk.contains("Non-2xx"), "{wrk}");
    }
}

/// What a client in the machine's network says at its end, with upgrades for as long as it runs.
fn under_upgrades(web: &Web, mut client: Command) -> String {
    client.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = web.machine.enter_network(|| client.spawn()).expect("tests/setup.sh installs the clients");
    let output = std::thread::scope(|scope| {
        let ended = scope.spawn(move || client.wait_with_output().unwrap());
        while !ended.is_finished() {
            web.upgrade();
        }
        ended.join().unwrap()
    });
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Eight tasks that share a client and its connections. Over HTTP/1 it may send nothing twice; over HTTP/2
/// what was never sent, because GOAWAY came first, goes to another connection.
async fn hyper_clients(http2: bool, stop: Arc<AtomicBool>) -> u64 {
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(http2).retry_canceled_requests(http2).build_http();
    let tasks = (0..8_u64).map(|task| {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let number = task << 32 | answered;
                let uri: Uri = format!("http://{ADDRESS}/slow?ms={task}&number={number}").parse().unwrap();
                let answer = client.get(uri).await.unwrap_or_else(|error| panic!("{number}: {error:?}"));
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(body.ends_with(format!("number {number}\n").as_bytes()), "{number}: {body:?}");
                answered += 1;
            }
            answered
        })
    });
    let mut sum = 0;
    for task in tasks.collect::<Vec<_>>() {
        sum += task.await.unwrap();
    }
    sum
}

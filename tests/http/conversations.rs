//! The same conversations with a service that is upgraded in the middle, and with one that is not: the same
//! answers.

use super::script::{Script, Talk};
use crate::load::Answer;
use crate::pattern::pattern;
use crate::web::Web;

/// Bodies that no buffer holds.
const LARGE: usize = 10_000_000;

/// What can be said on a connection, so that an upgrade may meet it anywhere.
const CONVERSATIONS: [(&str, Talk); 15] = [
    ("nothing at first", |script| {
        script.switch();
        script.say(&get("/?number=1"))?;
        script.hear(1)
    }),
    ("one request after the other", |script| {
        for number in 1..=3 {
            script.say(&get(&format!("/?number={number}")))?;
            script.hear(1)?;
            script.switch();
        }
        script.say(&get("/nothing"))?;
        script.hear(1)
    }),
    ("who is logged in", |script| {
        script.say(&get("/whoami"))?;
        script.switch();
        script.say(&(get("/login?name=me") + &get("/whoami")))?;
        script.hear(3)?;
        script.switch();
        script.say(&(get("/whoami") + &get("/login?name=you")))?;
        script.switch();
        script.say(&get("/whoami"))?;
        script.hear(3)
    }),
    ("a slow answer", |script| {
        script.say(&get("/slow?ms=300&number=1"))?;
        script.switch();
        script.hear(1)
    }),
    ("pipelined", |script| {
        let requests = (1..=10).map(|number| get(&format!("/slow?ms=20&number={number}")));
        script.say(&requests.collect::<String>())?;
        script.hear(3)?;
        script.switch();
        script.hear(7)
    }),
    ("pipelined, of many kinds, up to the middle of a head", |script| {
        script.say(&format!(
            "{}{}POST /echo HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
             {}GET /?number=5 HTTP/1.1\r\nHo",
            get("/bytes?length=100000&number=1"),
            post("/echo", "two"),
            get("/slow?ms=100&number=4"),
        ))?;
        script.switch();
        script.hear(4)?;
        script.switch();
        script.say("st: web\r\n\r\n")?;
        script.hear(1)
    }),
    ("a request behind an answer that nobody reads", |script| {
        script.say(&(get("/bytes?length=10000000&number=1") + &get("/?number=2")))?;
        script.switch();
        script.hear(2)
    }),
    ("an upload in chunks", |script| {
        script.say("POST /echo HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        script.switch();
        script.say("7;name=value\r\n sec")?;
        script.switch();
        script.say("ond\r\n1")?;
        script.switch();
        script.say("0\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n")?;
        script.hear(1)
    }),
    ("a body that is not wanted", |script| {
        script.say(&EXPECTS.replace("/reverse", "/nothing"))?;
        script.switch();
        // It is not wanted, and may come all the same.
        script.hear(1)?;
        script.hear_the_end()
    }),
    ("a body that is waited for", |script| {
        script.say(EXPECTS)?;
        script.switch();
        script.hear(1)?;
        script.switch();
        script.say("0123456789")?;
        script.hear(1)
    }),
    ("a slow head", |script| {
        script.say("GET /?number=1 HTTP/1.1\r\nHost: web\r\n")?;
        script.trickle("A: 1")?;
        script.switch();
        script.trickle("2\r\n\r")?;
        script.say("\n")?;
        script.hear(1)
    }),
    ("a slow head from its first byte on", |script| {
        script.trickle("GE")?;
        script.switch();
        script.trickle("T /")?;
        script.say("?number=1 HTTP/1.1\r\nHost: web\r\n\r\n")?;
        script.hear(1)
    }),
    ("heads only", |script| {
        for path in ["/bytes?length=100000", "/nothing", "/bytes?length=9&chunked"] {
            script.say(&get(path).replace("GET", "HEAD"))?;
            script.switch();
            script.hear_head()?;
        }
        Ok(())
    }),
    ("large bodies both ways", |script| {
        script.say(&get(&format!("/bytes?length={LARGE}&number=1")))?;
        script.hear_over_a_switch(LARGE)?;
        script.say_and_hear_over_a_switch(&post("/echo", &pattern(2, 0, LARGE)))?;
        script.say(&get(&format!("/bytes?length={LARGE}&number=3&chunked")))?;
        script.switch();
        script.hear(1)
    }),
    ("as of old", |script| {
        script.say("GET /?number=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        script.hear(1)?;
        script.switch();
        script.say("GET /bytes?length=10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        script.hear(1)?;
        script.switch();
        script.say("GET /bytes?length=10&chunked HTTP/1.0\r\n\r\n")?;
        script.hear(1)
    }),
];

const EXPECTS: &str =
    "POST /reverse HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

on_every_systemd! {
    fn the_answers_are_the_same_however_often_the_service_is_upgraded_meanwhile(systemd) {
        let web = Web::boot(systemd);
        for (what, talk) in CONVERSATIONS {
            println!("{what}");
            let never = Script::run(&web, 0, talk);
            for upgrades in [1, 3] {
                let minutes = Script::run(&web, upgrades, talk);
                assert_eq!(minutes.answers.len(), never.answers.len(), "{what}");
                for (found, wanted) in minutes.answers.iter().zip(&never.answers) {
                    assert!(found == wanted, "{what}: want {}, found {}", brief(wanted), brief(found));
                }
                assert_eq!(minutes.connection.is_some(), never.connection.is_some(), "{what}");
                // Wherever it was answered, then it went on.
                if let Some(mut connection) = minutes.connection {
                    let answer = connection.get("/", false).unwrap();
                    assert_eq!(answer.pid(), Some(web.main_pid()), "{what}");
                }
            }
        }
    }
}

/// An answer, with no more of its body than a person reads.
fn brief(answer: &Answer) -> String {
    let Answer { status, headers, body, last } = answer;
    let start: String = body.chars().take(200).collect();
    format!("{status:?} {headers:?} {} bytes {start:?} last {last}", body.len())
}

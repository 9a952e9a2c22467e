//! Requests of all kinds in one stream of bytes, of which each client has sent so much when the service is
//! upgraded, one more than the client before: every state in which a connection can be met.

use super::script::anybodys;
use crate::load::{Answer, Connection, Loss};
use crate::web::Web;

/// What they send, and which answers have no body.
const STREAM: &str = "\
    GET /?number=1 HTTP/1.1\r\nHost: web\r\n\r\n\
    POST /echo HTTP/1.1\r\nHost: web\r\nContent-Length: 12\r\n\r\nGET / is two\
    HEAD /bytes?length=300 HTTP/1.1\r\nHost: web\r\n\r\n\
    POST /reverse HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nthree\r\n7;a=b\r\nis four\r\n0\r\nEnd: x\r\n\r\n\
    GET /bytes?length=300&number=5&chunked HTTP/1.1\r\nHost: web\r\n\r\n";
const ANSWERS: [bool; 5] = [false, false, true, false, false];

on_every_systemd! {
    fn an_upgrade_may_come_after_any_byte(systemd) {
        let web = Web::boot(systemd);
        let mut never = web.connect();
        never.write(STREAM).unwrap();
        let never = hear(&mut never).unwrap();

        let mut clients: Vec<_> = (0..=STREAM.len()).map(|_| web.connect()).collect();
        // Twice, so that connections which have come from elsewhere are met, too.
        for _ in 0..2 {
            for (cut, client) in clients.iter_mut().enumerate() {
                client.write(&STREAM[..cut]).unwrap();
            }
            let old = web.main();
            web.upgrade();
            for (cut, client) in clients.iter_mut().enumerate() {
                client.write(&STREAM[cut..]).unwrap();
                let answers = hear(client).unwrap_or_else(|loss| panic!("cut after {cut} bytes: {loss}"));
                assert_eq!(answers, never, "cut after {cut} bytes");
            }
            // Wherever they were answered, then they went on.
            old.leaves();
        }
        let main = web.main_pid();
        for mut client in clients {
            assert_eq!(client.get("/", false).unwrap().pid(), Some(main));
        }
    }
}

/// All answers on one connection.
fn hear(client: &mut Connection) -> Result<Vec<Answer>, Loss> {
    ANSWERS.iter().map(|to_head| client.response(*to_head).map(anybodys)).collect()
}

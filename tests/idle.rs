//! `handover run --idle`: which connections of a generation that drains find their end early. One that
//! rests after an answer does; one whose client has not asked yet, or waits for its answer, does not.

use rustix::process::Signal;

use crate::load::Connection;
use crate::run::{ADDRESS, App, THREE};

/// Answers at once, but `/later` at SIGUSR1. As uvicorn does, it drops whatever is under way at the end of
/// what it reads.
const LATER: &str = "\
import asyncio, signal
later = []
class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        later.append(self) if b'/later' in data else self.answer()
    def answer(self):
        self.transport.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n')
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: [one.answer() for one in later])
    server = await loop.create_server(Server, '0.0.0.0', 8080)
    await server.serve_forever()
asyncio.run(main())
";

on_every_systemd! {
    fn only_a_connection_that_rests_after_an_answer_is_half_closed(systemd) {
        let app = App::prepare(systemd, THREE, "--idle 100ms", "/usr/bin/python3 /run/later.py", "");
        app.machine.push("/run/later.py", LATER, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let old = app.process(app.live());
        let [mut fresh, mut waits, mut rests] =
            [(); 3].map(|()| app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap());
        waits.send("/later", false).unwrap();
        // It comes last, and is looked at together with the others.
        assert_eq!(rests.get("/", false).unwrap().body, "hello\n");
        let mark = app.machine.mark();
        app.upgrade();
        assert_eq!(rests.end().unwrap(), "");
        old.signal(Signal::USR1);
        assert_eq!(waits.answer().unwrap().body, "hello\n");
        assert_eq!(fresh.get("/", false).unwrap().body, "hello\n");
        for mut rests in [waits, fresh] {
            assert_eq!(rests.end().unwrap(), "");
        }
        app.machine.await_journal(&mark, &["-u", "app"], "generation 1 has left");
    }
}

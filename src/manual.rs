//! What survives, what is lost, and what to do about it. Prose only: nothing in here is ever run.
//!
//! # What a connection survives
//!
//! | | accepted | [taken along](crate::daemon::Daemon::connections) | and [stashed](crate::daemon::Live::stash) |
//! |---|---|---|---|
//! | upgrade (`systemctl reload`) | drains in the old process | moves between two requests | moves |
//! | an upgrade that fails, at any moment | untouched | untouched | untouched |
//! | `systemctl restart` | drains, up to the deadline | stashed when it rests | stays |
//! | crash, kill -9, watchdog | ends | ends | stays |
//! | `systemctl stop`, then `start` | ends | ends | stays with FileDescriptorStorePreserve=yes (254) |
//! | the start limit | ends | ends | stays with FileDescriptorStorePreserve=yes (254) |
//! | daemon-reload, daemon-reexec | untouched | untouched | untouched |
//! | soft-reboot (254) | ends | ends | stays with FileDescriptorStorePreserve=yes, see below |
//! | reboot | ends | ends | ends |
//!
//! State that is [saved](crate::daemon::Live::save) for a connection goes where the connection goes;
//! the [state of the service](crate::daemon::Serving::save_state) and the
//! [record](crate::daemon::Serving::record) survive what a stashed connection survives.
//!
//! # What is lost
//!
//! A process can be killed between any two of its instructions. What it had read out of a socket and
//! neither answered nor saved is then nowhere: the peer waits for an answer that nobody owes it. So the
//! order is all that matters:
//!
//! | order | killed in between |
//! |---|---|
//! | read, answer, save | after the answer: the peer was told of something that never happened |
//! | read, save, answer | after the read: the request is gone. After the save: it is done, and not answered |
//! | **peek, save, answer, consume** | before the save: the next process finds the request as if it had just come. After it: finds a request that its state knows already, and answers it (again) |
//!
//! * [`peek`](crate::daemon::Live::peek) leaves the bytes in the kernel's buffer, which lives as long as
//!   the connection does; [`consume`](crate::daemon::Live::consume) takes them out. A request must fit
//!   into that buffer (net.ipv4.tcp_rmem, net.core.rmem_default).
//! * *Save before you answer*: the answer is a promise. A save is a few stores into memory that PID 1
//!   holds, too; it is whole or it has not happened.
//! * A request may be answered twice, never done twice, if it can be told from the one before: by a tag
//!   or a number of the client's, which is saved with what it did. The `keeper` sample does so. Without
//!   one, the last request before a crash may be done twice.
//! * What was written to a socket is the kernel's, and arrives without us. Of an answer larger than the
//!   send buffer the part that was not written yet is lost with the process.
//! * TLS, and all other bytes that live in the process, cannot move: terminate TLS in front.
//! * A request that is served while the service stops is finished; at the drain deadline it is cut, and
//!   the next process finds it as after a kill.
//! * An upgrade never delays a request: until it is decided, a connection that was to move and is asked
//!   something is served by the old process, and moves when it [rests](crate::daemon::Live::rest) again.
//!   Should the old process crash between that answer and the decision, a few milliseconds later, the new
//!   one knows of the answer only if the connection is stashed.
//! * A client that leaves while no process serves is noticed when the next one reads. One that resets
//!   its connection is dropped by PID 1 itself.
//!
//! Where PID 1 does not keep something, the service is told: [`stash`](crate::daemon::Live::stash)
//! fails with the name of the setting, and what belongs to handover itself goes to the journal
//! (`HANDOVER_PHASE=not-kept`). Nothing is sent that PID 1 would silently close.
//!
//! # Settings of the unit
//!
//! | setting | why |
//! |---|---|
//! | FileDescriptorStoreMax= | as many as connections are to be stashed, and three: state, record, one to prove that there is room |
//! | FileDescriptorStorePreserve=yes | before 254 it is ignored, and the store ends with `systemctl stop` and at the start limit |
//! | LimitNOFILE= | at a start everything in the store is passed at once: more than twice FileDescriptorStoreMax= and 64. With the default of 1024 no more than some 470 are stashed; the error says so. For an upgrade both processes have all connections for a moment |
//! | StartLimitIntervalSec=0 | at a start limit PID 1 closes the listening sockets |
//! | Restart=always, RestartSec=100ms | after a crash the stall is as long as this and the start |
//! | WantedBy=... system.slice | for a soft-reboot: 254 to 260 forget the store of a unit that no unit wants which stays active |
//! | Environment=FDSTORE=N | on 252 alone, which does not tell the limit; the same number as FileDescriptorStoreMax=. Without it each place is proven first, which makes stashing three times as slow |
//!
//! # HTTP
//!
//! With the feature `http`, or `axum`, each connection of a service is a live one, and knows by itself when
//! it is between two requests:
//!
//! ```text
//!   the old process                                          the new process
//!   request, response, request, response, -- between two --> request, response, ...
//!                                      GE -- in its luggage -> GE + T / HTTP/1.1 ...
//!   POST, a body that lasts .............., response --------> request, response, ...
//!   HTTP/2: GOAWAY, the last responses, end     (the client) -> connects, and goes on
//!   WebSocket: told, says goodbye, end          (the client) -> connects, and goes on
//! ```
//!
//! | a connection | upgrade | `systemctl restart` | crash, kill -9 |
//! |---|---|---|---|
//! | has not said anything yet | moves | through PID 1 | ends; with `Keep::All` it stays |
//! | HTTP/1, between two requests | moves | through PID 1 | ends; with `Keep::Idle` or `Keep::All` it stays |
//! | part of the head of a request was read | moves, and that part with it | through PID 1 | as between two requests |
//! | a request is served, or its body comes | moves after the response | goes through PID 1 after it | ends, without a response |
//! | several requests were read at once | moves after their responses | the same | ends |
//! | HTTP/2 | GOAWAY, drains | GOAWAY, drains | ends |
//! | upgraded: WebSocket, CONNECT | its service is told, drains | the same | ends |
//! | TLS ends in the process | drains: `http::serve_here` | drains | ends |
//!
//! * *Nobody sees a close, a reset or a retry* where it says moves: the client goes on with the connection
//!   that it has, and cannot tell that another process answers.
//! * *Drains*: what has come is answered. Then the client of HTTP/1 is told `Connection: close` with a
//!   response, never without one; that of HTTP/2 by GOAWAY (RFC 9113 6.8: a first one with room for what is
//!   on its way, a second one a round trip later); a WebSocket by its service, which `Connection::leaving()`
//!   tells. All are work in flight, which the drain deadline ends.
//! * Where the next process takes no connections, or not with state of this
//!   [version](#versions-of-state), and where PID 1 has no room, a connection stays, and drains.
//! * *A crash loses the requests that were being served, and resurrects none*: a connection that PID 1
//!   holds is marked as busy before the first byte of a request is taken out of the kernel. The next
//!   process ends the marked ones: nobody owes their clients an answer any more, and an end of file says
//!   so. To mark costs a save twice a request, of connections that PID 1 holds alone.
//! * What is read of a head counts for
//!   [`Options::state_bytes`](crate::daemon::Options::state_bytes), as does what is attached to its
//!   connection. More than that does not move: the request is answered where it began.
//! * *TLS in the process* has its keys and counters there, which no other process can go on with. It drains
//!   politely: the last response says so, and then TLS does, too (close_notify). A client that asks nothing
//!   more stays until the drain deadline, and hears close_notify then. But all connect anew in each upgrade.
//!   What does move is plain HTTP behind something that ends TLS: HAProxy, nginx, stunnel or a load balancer,
//!   over TCP or a unix socket. Such a proxy keeps its connections to the service, and sees none of them close.
//!
//!   ```text
//!     client == TLS ==> HAProxy -- HTTP/1, keep-alive --> the service      moves: nobody connects anew
//!     client ======== TLS, HTTP/1 or HTTP/2 ============> the service      drains: the client connects anew
//!   ```
//!
//! # Versions of state
//!
//! [`Options::state_version`](crate::daemon::Options::state_version) says which version of state a
//! program writes, and which program is the oldest to read it. To a program that is too old connections
//! do not move: they end where they are, in the old process. One that PID 1 starts, as after a rollback
//! by `systemctl restart`, ends them, and says so. State that an older program wrote is passed on as it
//! is: a program that changes its state must tell its versions apart.

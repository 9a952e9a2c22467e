//! The control socket: who may ask, and how much of their time a client gets.
//!
//! A client is a task beside the loop: it can be slow, silent, or gone, and keeps only itself waiting.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::manager::wire::{self, MOST_REQUEST_BYTES, Refused, Reply, Request};

/// How long a client may take to say what it wants, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at one time, most of which wait for the end of a job or for a change; others wait in the socket's
/// queue.
const MOST_CLIENTS: usize = 512;

/// What a client wants, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// Listens at `path`. Everybody may connect, and who may not ask is told so.
pub(crate) fn listen(path: &Path, questions: mpsc::UnboundedSender<Asked>) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    tokio::spawn(async move {
        // The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((client, _)) = listener.accept().await else { continue };
            let questions = questions.clone();
            tokio::spawn(async move {
                // A client that went away is no news.
                let _ = converse(client, questions).await;
                drop(place);
            });
        }
    });
    Ok(())
}

/// One request, one answer.
async fn converse(mut client: UnixStream, questions: mpsc::UnboundedSender<Asked>) -> io::Result<()> {
    let reply = match read(&mut client).await {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            let _ = questions.send(Asked { request, answer });
            tokio::select! {
                reply = answered => reply.unwrap_or_else(|_| {
                    refused(Refused::Ending, "the stand-in ends".into())
                }),
                // It went away: the job goes on without it.
                _ = client.read_u8() => return Ok(()),
            }
        }
        Err(reply) => reply,
    };
    timeout(PATIENCE, client.write_all(&wire::line(&reply))).await?
}

/// What the client wants, or why it gets nothing.
async fn read(client: &mut UnixStream) -> Result<Request, Reply> {
    let denied = |message: String| refused(Refused::AccessDenied, message);
    let peer = client.peer_cred().map_err(|why| denied(format!("who asks is unknown: {why}")))?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if peer != own && peer != 0 {
        return Err(denied(format!("this is user {own}'s stand-in, and user {peer} asks")));
    }
    let mut line = Vec::new();
    let bad = |message: String| refused(Refused::BadRequest, message);
    let whole = async {
        let mut bytes = [0; 1024];
        while !line.ends_with(b"\n") && line.len() <= MOST_REQUEST_BYTES {
            match client.read(&mut bytes).await {
                Ok(0) | Err(_) => return false,
                Ok(len) => line.extend_from_slice(bytes.get(..len).unwrap_or_default()),
            }
        }
        line.len() <= MOST_REQUEST_BYTES
    };
    match timeout(PATIENCE, whole).await {
        Ok(true) => wire::read(&line).map_err(bad),
        Ok(false) => Err(bad(format!("a request is one line of at most {MOST_REQUEST_BYTES} bytes"))),
        Err(_) => Err(bad(format!("there was no request within {} s", PATIENCE.as_secs()))),
    }
}

/// An answer that says no.
pub(crate) fn refused(reason: Refused, message: String) -> Reply {
    Reply::Refused { reason, message }
}

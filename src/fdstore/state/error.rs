//! Why state cannot be read or saved, and what to do about it.

use std::io;

use crate::fdstore::layout::Misfit;
use crate::sys::memfd::MemoryError;

/// Why state cannot be read or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// What is under the name of the state file cannot be used as memory.
    #[error("the state file cannot be used: {0}")]
    Memory(#[from] MemoryError),
    /// It is memory, but no state file.
    #[error("what is stored as the state file is none: it does not begin like one")]
    NotOurs,
    /// Another version of handover wrote it, in a way that this one cannot read.
    #[error("the state file has format {found}, which this version of handover does not know")]
    Format {
        /// Its format.
        found: u64,
    },
    /// It is a state file, and something in it cannot be true.
    #[error("the state file is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// A newer program wrote the service's state, in a way that this one cannot read.
    #[error(
        "the state was written as version {written}, for programs of version {readable_by} and newer; \
         this one is of version {ours}: start the newer program, or go on without the state"
    )]
    TooNew {
        /// The version it was written as.
        written: u32,
        /// The oldest version that can read it.
        readable_by: u32,
        /// The version of this program.
        ours: u32,
    },
    /// All cells are in use.
    #[error(
        "all {cells} places for the state of a connection are in use: raise FileDescriptorStoreMax= or Options::connections"
    )]
    Full {
        /// How many there are.
        cells: u32,
    },
    /// Another process is the service, and its state is its own.
    #[error("this process has handed over: the state of the service is another one's")]
    Retired,
    /// The connection was given away while it rested, and its state with it.
    #[error("the connection lives on in another process, with its state: drop it here")]
    Moved,
    /// A state is larger than its place.
    #[error("a state of {bytes} bytes does not fit into {most}: raise Options::{option}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most bytes that fit.
        most: usize,
        /// The option that decides it.
        option: &'static str,
    },
    /// The connection has ended, and its place may be another's.
    #[error("connection {id} has no state any more: it has ended")]
    Gone {
        /// Its id.
        id: u64,
    },
    /// The kernel has no memory for it; what was saved before is still there.
    #[error("no memory for the state")]
    NoMemory(#[from] io::Error),
}

impl From<Misfit> for StateError {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::NotOurs => Self::NotOurs,
            Misfit::Format(found) => Self::Format { found },
            Misfit::Damaged => Self::Damaged { what: "its header does not agree with its checksum" },
        }
    }
}

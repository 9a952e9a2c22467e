//! The rules by theme: each file is a table, and below it a function for each row, in the same order.
//!
//! A function says None where nothing is wrong, and never more than the first thing that is.

mod readiness;
mod reload;
mod restart;
mod run;
mod sandbox;
mod sockets;
mod stopping;
mod store;

use super::reader;
use super::rule::Rule;

/// All of them.
pub(super) const ALL: [&[Rule]; 9] = [
    readiness::RULES,
    reload::RULES,
    store::RULES,
    restart::RULES,
    stopping::RULES,
    sockets::RULES,
    sandbox::RULES,
    run::RULES,
    reader::RULES,
];

//! Fuzz targets for everything that reads what others wrote: `tests/fuzz/run` builds and runs them.
//!
//! libFuzzer on the stable compiler: the instrumentation is LLVM's own, asked for by RUSTFLAGS. Without
//! it there is nothing to run.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod target {
    use std::sync::LazyLock;

    use handover::fuzz;

    /// The environment variable that says which target this process runs.
    const TARGET: &str = "FUZZ_TARGET";

    static CHOSEN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
        let name = std::env::var(TARGET).unwrap_or_default();
        match name.as_str() {
            "listen" => fuzz::listen,
            "link" => fuzz::link,
            "state" => fuzz::state,
            "record" => fuzz::record,
            "address" => fuzz::address,
            "failure" => fuzz::failure,
            "http" => fuzz::http,
            "unit" => fuzz::unit,
            "datagram" => fuzz::datagram,
            "control" => fuzz::control,
            "check" => fuzz::check,
            _ => panic!(
                "{TARGET}={name:?}: wanted listen, link, state, record, address, failure, http, unit, datagram, \
                 control or check"
            ),
        }
    });

    libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN(data));
}

#[cfg(not(fuzzing))]
fn main() {}

//! The `handover` program: everything it does is in the chapter `cli`.

fn main() -> std::process::ExitCode {
    handover::cli::main()
}

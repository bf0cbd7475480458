//! Arguments to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    wirehook::cli::main(&wirehook::program::Program::new())
}

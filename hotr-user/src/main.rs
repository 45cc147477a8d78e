//! The `hotr` command: reads the command line, runs one command, and turns its end into an exit status.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

//! `cargo xtask run -- ARGS`: build what is not fresh and become hotr.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::build::{self, Flavour};

/// What hotr is given.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Arguments of hotr, for example `trace --json DIR`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Entry point of the command; returns only when hotr cannot be started.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let hotr = build::hotr(Flavour::Release)?;
    // Replacing ourselves leaves hotr the terminal, the signals and the exit status.
    let error = Command::new(&hotr).args(&args.args).exec();
    Err(error).with_context(|| format!("run {}", hotr.display()))
}

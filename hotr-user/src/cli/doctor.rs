//! `hotr doctor`: looks at the machine and at the paths, and says what can be covered.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueHint};
use hotr_user::doctor::Examination;
use hotr_user::output::doctor::{human, json};

use super::{ColorChoice, Status, engine, paths};

const EXAMPLES: &str = "\
Examples:
  hotr doctor             what this machine allows
  hotr doctor /srv        can hotr see every change under /srv, and through which channels
  hotr doctor --json /srv | jq 'select(.section == \"path\")'

Exit status: 0 every path can be fully covered, 3 one cannot; 1 error; 2 usage error.";

/// Print what this machine lets hotr see, and whether the paths can be fully covered
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Directories or files that should be covered
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Print JSON Lines
    #[arg(long)]
    json: bool,
    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<Status> {
    let mut places = Vec::new();
    for path in &args.paths {
        let facts = paths::look(path);
        let named = paths::check(path, &facts)?;
        places.push((named, facts.real.unwrap_or_else(|_| path.clone())));
    }
    let exam = Examination::new(&places, engine::plan);
    let mut out = io::stdout().lock();
    if args.json {
        json::print(&exam, &mut out)
    } else {
        human::print(&exam, args.color.on_stdout(), &mut out)
    }
    .context("write to stdout")?;
    Ok(if exam.covers_all() { Status::Done } else { Status::Found })
}

//! `cargo xtask test`: every test there is, one verdict.
//!
//! In: nothing but the checkout. Out: the tests' output, the failures again in short, and as the last line
//! `N passed, N failed` over unit tests, native cells and virtual machines.

use std::{
    io::{BufRead as _, BufReader},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    build::{self, Flavour},
    cmd::{self, say},
    paths, setup,
    tally::Tally,
    vm::{kernel, matrix},
};

/// A guest of the whole matrix is stopped after this time.
const GUEST_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Gives the tests of hotr-user the path of the hotr with messages of the kernel programs.
const WITH_MESSAGES: &str = "HOTR_WITH_MESSAGES";

/// Which tests to run.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Only these parts, divided by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
}

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `cargo test` of the workspace
    Unit,
    /// The matrix's tracepoint tier on this machine's kernel
    Native,
    /// The matrix on the kernels of the virtual machines
    Vm,
}

impl Part {
    const ALL: [Self; 3] = [Self::Unit, Self::Native, Self::Vm];

    fn title(self) -> &'static str {
        match self {
            Self::Unit => "cargo test",
            Self::Native => "native kernel",
            Self::Vm => "virtual machines",
        }
    }

    fn run(self) -> Result<Tally> {
        match self {
            Self::Unit => unit(),
            Self::Native => matrix::natively(&matrix::Selection::default()),
            Self::Vm => machines(),
        }
    }
}

/// Entry point of the command. A part that cannot run is a failure of that part; the others still run.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let parts: Vec<Part> =
        Part::ALL.into_iter().filter(|part| args.only.is_empty() || args.only.contains(part)).collect();
    let mut total = Tally::default();
    for part in &parts {
        let start = Instant::now();
        say(format!("test: {}", part.title()));
        let mut tally = part.run().unwrap_or_else(|error| {
            let mut tally = Tally::default();
            tally.fail(format!("{}: {error:#}", part.title()));
            tally
        });
        if tally.passed == 0 && tally.failed() == 0 {
            tally.fail(format!("{}: nothing ran", part.title()));
        }
        tally.print(part.title());
        say(format!("test: {} took {} s", part.title(), start.elapsed().as_secs()));
        total.add(tally);
    }
    if total.failed() > 0 {
        println!("\nfailures:");
        for failure in &total.failures {
            println!("  {}", failure.lines().next().unwrap_or_default());
        }
    }
    println!("{} passed, {} failed", total.passed, total.failed());
    Ok(total.exit())
}

/// `cargo test` with the real object inside, shown as it goes and counted.
fn unit() -> Result<Tally> {
    setup::install(setup::TESTS)?;
    setup::targets::ensure();
    let object = build::object(&setup::build()?)?;
    let with_messages = build::hotr(Flavour::Log)?;
    let mut command = cmd::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(paths::root())
        .env(build::OBJECT, object)
        .env(WITH_MESSAGES, with_messages);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let output = child.stdout.take().context("read the output of cargo test: it has none")?;
    let mut text = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("read the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().context("wait for cargo test")?;
    let mut tally = Tally::of_cargo_test(&text);
    if !status.success() && tally.failed() == 0 {
        tally.fail(format!("cargo test: ended with {status}; its messages are above"));
    }
    Ok(tally)
}

fn machines() -> Result<Tally> {
    setup::install(setup::TESTS)?;
    let mut tally = Tally::default();
    let mut kernels = Vec::new();
    for label in kernel::labels() {
        // A kernel that cannot be had is a failure; the others are still tested.
        match kernel::of_series(&label, false) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => tally.fail(format!("{label}: {error:#}")),
        }
    }
    tally.add(matrix::in_guests(&kernels, &matrix::Selection::default(), GUEST_LIMIT, false)?);
    Ok(tally)
}

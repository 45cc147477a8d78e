//! `cargo xtask`: everything that is done to this repository by one command each.
//!
//! In: the command line. Out: a built program, a test verdict, a virtual machine's answer; progress goes to stderr,
//! results to stdout, and the exit status is 1 whenever a requested action did not happen.

mod apt;
mod bench;
mod build;
mod check;
mod cmd;
mod dist;
mod paths;
mod picture;
mod run;
mod setup;
mod tally;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set up, build, run, test and measure hotr.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build (and, if asked, the tests) need on this machine
    Setup(setup::SetupArgs),
    /// Build the eBPF object and the program that carries it: target/release/hotr
    Build(build::BuildArgs),
    /// Build if necessary and run hotr with the arguments that follow
    Run(run::RunArgs),
    /// Run every test; the last line is `N passed, N failed`
    Test(test::TestArgs),
    /// Run the test matrix, or one command, on other kernels in virtual machines
    Vm(vm::VmArgs),
    /// Run the matrix in the mount namespace that `test` made
    #[command(hide = true)]
    NativeMatrix(vm::matrix::NativeArgs),
    /// Measure hotr, alone and compared with other tools
    Bench(bench::BenchArgs),
    /// Build the packages of hotr: target/dist
    Dist(dist::DistArgs),
    /// Try the packages in the mount namespace that `dist --test` made
    #[command(hide = true)]
    DistTrial(dist::trial::TrialArgs),
    /// Draw what hotr prints of a recorded run: docs/diagnose.svg
    Picture(picture::PictureArgs),
    /// Format, lints, licences and the shape of the repository
    Check(check::CheckArgs),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.task {
        Task::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::NativeMatrix(args) => vm::matrix::in_namespace(&args).map(|()| ExitCode::SUCCESS),
        Task::Bench(args) => bench::run(&args),
        Task::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Task::DistTrial(args) => dist::trial::in_namespace(&args).map(|()| ExitCode::SUCCESS),
        Task::Picture(args) => picture::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Check(args) => check::run(&args),
    }
}

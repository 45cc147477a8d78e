//! Loads the programs of a tier on all processors at once.
//!
//! The kernel's verifier takes most of the time until `ready`, and works on as many programs at a time as there are
//! callers. What is refused here is requested again when it is attached, where the answer is kept.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::programs::{Program, ProgramError};

use super::types::KernelTypes;

/// No machine gets faster by more.
const MAX_WORKERS: usize = 16;

/// How the names of programs begin that the verifier is done with soon: they come last, so that at the end nobody waits
/// for one that takes long.
const LIGHT: &[&str] = &[
    "ctime",
    "exit_open",
    "fentry_r",
    "fentry_un",
    "kprobe_",
    "perf_open",
    "perf_sys_exit",
    "sys_exit",
    "wake",
];

/// Loads the programs whose name is in `wanted`, each for the function or tracepoint that stands there.
pub(super) fn preload(ebpf: &mut Ebpf, kernel: &KernelTypes, wanted: &HashMap<&str, &str>) {
    let programs = ebpf.programs_mut().filter_map(|(name, program)| {
        let is_light = LIGHT.iter().any(|begin| name.starts_with(begin));
        Some((program, *wanted.get(name)?, is_light))
    });
    let mut programs: Vec<(&mut Program, &str, bool)> = programs.collect();
    // Taken from the end.
    programs.sort_by_key(|(.., is_light)| !is_light);
    let waiting = Mutex::new(programs);
    let work = || {
        while let Some((program, function, _)) = next(&waiting) {
            let _ = load(program, function, kernel);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS);
    std::thread::scope(|scope| {
        for _ in 1..workers {
            // Without another thread this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

fn next<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// Loads a program for a function or tracepoint, unless it has been.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn load(program: &mut Program, function: &str, kernel: &KernelTypes) -> Result<(), ProgramError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::FEntry(program) => program.load(function, kernel.for_aya()),
        Program::FExit(program) => program.load(function, kernel.for_aya()),
        Program::BtfTracePoint(program) => program.load(function, kernel.for_aya()),
        Program::KProbe(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        _ => Err(ProgramError::NotLoaded),
    }
}

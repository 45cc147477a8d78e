//! One run: the laboratory, the experiments one after the other, and what was found.

use std::time::{Duration, Instant};

pub use super::bench::SelfTest;
use super::bench::{Bench, Programs};
use super::evidence::Evidence;
use super::experiment::Experiment;
use super::lab::Lab;
use super::listen::delivery::Deliveries;
use super::listen::kernel::Kernel;
use super::strace::Strace;
use super::verdict::Ruling;
use crate::ending;
use crate::error::Error;

/// What to run.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The experiments, in this order.
    pub experiments: Vec<&'static Experiment>,
    /// How often each is made.
    pub repeat: u32,
    /// Files and mounts stay until the process ends.
    pub keep: bool,
    /// The listener's system calls are recorded, by strace.
    pub strace: bool,
    /// What the self-test leaves out.
    pub self_test: SelfTest,
}

impl Options {
    /// Each of these once.
    #[must_use]
    pub const fn new(experiments: Vec<&'static Experiment>) -> Self {
        Self {
            experiments,
            repeat: 1,
            keep: false,
            strace: false,
            self_test: SelfTest { mute: None, omit_operation: false },
        }
    }
}

/// What one experiment found.
#[derive(Clone)]
#[non_exhaustive]
pub struct Finding {
    /// Which one.
    pub experiment: &'static Experiment,
    /// Its ruling; of several runs that differ, that they do.
    pub ruling: Ruling,
    /// The evidence of the last run.
    pub evidence: Evidence,
    /// How long it took, all runs together.
    pub duration: Duration,
}

/// Runs experiments, and passes each finding to `tell`, until the end is asked for. `started` is called with each
/// experiment's name before it is made.
///
/// # Errors
/// Without the privileges for a laboratory, in a process of several threads, and any error of `tell`.
pub fn run(
    options: &Options,
    mut started: impl FnMut(&'static Experiment),
    mut tell: impl FnMut(Finding) -> std::io::Result<()>,
) -> Result<Lasting, Error> {
    be_alone()?;
    let strace = options.strace.then(attach).transpose()?;
    let mut lab = Lab::enter(options.keep)?;
    let mut deliveries = Err("the run ends".to_owned());
    let kernel = Kernel::new(lab.base(), || deliveries = Deliveries::new());
    let mut programs = Programs { kernel, deliveries, strace, has_uncovered: false };
    for experiment in &options.experiments {
        if ending::is_asked() {
            break;
        }
        started(experiment);
        let since = Instant::now();
        let mut rulings = Vec::new();
        let mut evidence = Evidence::default();
        for number in 0..options.repeat {
            let name = format!("{}-{number}", experiment.name);
            let (ruling, new) = once(experiment, &mut lab, &mut programs, options.self_test, &name);
            evidence = new;
            rulings.push(ruling);
            if ending::is_asked() {
                return Ok(Lasting { lab });
            }
        }
        let Some(ruling) = together(rulings) else { continue };
        let duration = since.elapsed();
        tell(Finding { experiment, ruling, evidence, duration }).map_err(Error::Output)?;
    }
    Ok(Lasting { lab })
}

fn attach() -> Result<Strace, Error> {
    Strace::attach().map_err(|source| Error::Os {
        operation: "start",
        object: "strace".to_owned(),
        source,
        next: "or leave out --strace",
    })
}

/// The laboratory is entered by a thread and copied by fork(2), so there must be one thread.
fn be_alone() -> Result<(), Error> {
    let fault = |source| Error::Os {
        operation: "make",
        object: "a laboratory".to_owned(),
        source,
        next: "call verify::run in a process that has one thread, with /proc mounted",
    };
    match std::fs::read_dir("/proc/self/task").map_err(fault)?.count() {
        1 => Ok(()),
        count => Err(fault(std::io::Error::other(format!("this process has {count} threads")))),
    }
}

/// The laboratory after a run; it ends with this.
pub struct Lasting {
    lab: Lab,
}

impl Lasting {
    /// The directory with all files and mounts, as only processes in the laboratory's mount namespace see it.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.lab.base()
    }
}

fn once(
    experiment: &Experiment,
    lab: &mut Lab,
    programs: &mut Programs,
    self_test: SelfTest,
    name: &str,
) -> (Ruling, Evidence) {
    let mut bench = match Bench::new(lab, programs, self_test, name) {
        Ok(bench) => bench,
        Err(stop) => return (Ruling::not_testable(stop.0), Evidence::default()),
    };
    let result = (experiment.run)(&mut bench);
    let evidence = bench.evidence();
    match result {
        Ok(()) => (experiment.judge(&evidence), evidence),
        Err(stop) => (Ruling::not_testable(stop.0), evidence),
    }
}

/// One ruling for all runs.
fn together(rulings: Vec<Ruling>) -> Option<Ruling> {
    let first = rulings.first()?;
    if rulings.iter().all(|ruling| ruling.verdict == first.verdict) {
        return rulings.into_iter().next_back();
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for ruling in &rulings {
        let word = ruling.verdict.as_str();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    Some(Ruling::partly(format!("the runs differ: {}", counts.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_differ_are_no_proof() {
        let one = together(vec![Ruling::confirmed("a"), Ruling::confirmed("b")]);
        assert_eq!(one, Some(Ruling::confirmed("b")));
        let two = together(vec![Ruling::confirmed("a"), Ruling::refuted("b"), Ruling::confirmed("c")]);
        assert_eq!(two, Some(Ruling::partly("the runs differ: 2 confirmed, 1 refuted")));
        assert_eq!(together(Vec::new()), None);
    }
}

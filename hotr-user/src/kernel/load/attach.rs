//! Attaches the programs of functions: hook by hook the first tier, and in it the first function, that the kernel accepts.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya::programs::{KProbe, Program, ProgramError};
use hotr_common::hook::Hook;

use super::{PlannedHook, Refused, Tier};
use crate::kernel::error::{LOCKDOWN, chain, os_error};
use crate::kernel::preload;
use crate::kernel::probes::Probes;
use crate::kernel::table::{Programs, Site};
use crate::kernel::types::KernelTypes;

/// The programs while they are being attached.
pub(super) struct Attaching<'a> {
    ebpf: &'a mut Ebpf,
    kernel: &'a KernelTypes,
    refused: Refused,
    /// Opened when the first probe is attached; or why that cannot be.
    probes: Option<Result<Probes, String>>,
}

impl<'a> Attaching<'a> {
    pub(super) fn new(ebpf: &'a mut Ebpf, kernel: &'a KernelTypes, refused: Refused) -> Self {
        Self { ebpf, kernel, refused, probes: None }
    }

    /// The probes that programs hang on by now.
    pub(super) fn into_probes(self) -> Option<Probes> {
        self.probes.and_then(Result::ok)
    }

    /// Attaches a hook; what it got.
    pub(super) fn hook(&mut self, hook: Hook, sites: &[&Site], tiers: &[Tier]) -> PlannedHook {
        let mut why = Vec::new();
        for &tier in tiers {
            if let Some(reason) = self.refused.reason(tier) {
                why.push(format!("{}: {reason}", tier.as_str()));
                continue;
            }
            for site in sites {
                if self.kernel.function(site.function).and_then(|found| site.arguments(found)).is_none() {
                    why.push(format!("{}: this kernel has no {}", tier.as_str(), site.function));
                    continue;
                }
                match self.site(site.function, &site.programs, tier) {
                    Ok(()) => {
                        if let (Tier::Kprobe, Some(Err(error))) = (tier, &self.probes) {
                            why.push(format!("kretprobes see few calls at a time: {error}"));
                        }
                        let why = why.join("; ");
                        return PlannedHook { hook, tier: Some(tier), function: site.function, why };
                    }
                    Err(error) => {
                        let text = chain(&error);
                        if text == LOCKDOWN || is_altogether(os_error(&error)) {
                            self.refused.refuse(tier, &text);
                        }
                        why.push(format!("{} {}: {text}", tier.as_str(), site.function));
                    }
                }
            }
        }
        PlannedHook { hook, tier: None, function: sites[0].function, why: why.join("; ") }
    }

    /// Attaches all programs of a site, or none.
    pub(super) fn site(
        &mut self,
        function: &str,
        programs: &Programs,
        tier: Tier,
    ) -> Result<(), ProgramError> {
        let (entry, exit) = programs.of(tier);
        for (done, name) in entry.iter().chain(exit).enumerate() {
            if let Err(error) = self.program(function, name) {
                // This one as well: it may be loaded, for a function that another site does not have.
                for tried in entry.iter().chain(exit).take(done + 1) {
                    self.detach(tried);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn program(&mut self, function: &str, name: &str) -> Result<(), ProgramError> {
        let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
        preload::load(program, function, self.kernel)?;
        match program {
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            Program::KProbe(program) => probe(&mut self.probes, program, function, name),
            _ => Err(ProgramError::NotLoaded),
        }
    }

    /// Attaches the programs of several functions in one tier, or none of them.
    pub(super) fn all(&mut self, functions: &[(&str, Programs)], tier: Tier) -> Result<(), String> {
        for (done, (function, programs)) in functions.iter().enumerate() {
            if let Err(error) = self.site(function, programs, tier) {
                for (_, programs) in &functions[..done] {
                    let (entry, exit) = programs.of(tier);
                    entry.iter().chain(exit).for_each(|name| self.detach(name));
                }
                return Err(format!("{function}: {}", chain(&error)));
            }
        }
        Ok(())
    }

    fn detach(&mut self, name: &str) {
        if let Some(Ok(probes)) = &mut self.probes {
            probes.detach(name);
        }
        let result = match self.ebpf.program_mut(name) {
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            _ => Ok(()),
        };
        // It is detached when the object is dropped at the latest.
        let _ = result;
    }
}

/// Attaches a probe's program through tracefs, or as aya does it where that cannot be had.
fn probe(
    probes: &mut Option<Result<Probes, String>>,
    program: &mut KProbe,
    function: &str,
    name: &str,
) -> Result<(), ProgramError> {
    let opened = probes.get_or_insert_with(|| {
        Probes::open().map_err(|error| format!("open the probes of tracefs: {error}"))
    });
    if let Ok(opened) = opened {
        let attached = opened.attach(name, program.kind(), function, program.fd()?.as_fd());
        // If it is refused here, it may work there, and otherwise the answer there is the one to report.
        if attached.is_ok() {
            return Ok(());
        }
    }
    program.attach(function, 0).map(drop)
}

/// Whether the error is about permission for, or the presence of, the whole tier.
pub(super) fn is_altogether(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EPERM | libc::EOPNOTSUPP))
}

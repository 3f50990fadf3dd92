//! Attaching probes: for each the first candidate, by the first backend, that this kernel lets us.

use std::io;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};

use super::attached::{Attached, Link};
use super::btf::KernelTypes;
use super::fallback::first_that_works;
use super::plan::{Backend, Candidate, Group, Hook, Need, Probe};
use super::table::PROBES;
use super::tracer::ProbeError;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is attached.
    Attached {
        /// How.
        backend: Backend,
        /// To what.
        hook: &'static str,
        /// What was tried before, and why the kernel refused it.
        refused: Vec<String>,
    },
    /// This kernel has no use for it, because of this.
    Needless(&'static str),
    /// It is not attached, because of this.
    Missing(String),
}

/// A probe and what became of it.
#[derive(Clone, Debug)]
pub struct ProbeState {
    /// The probe.
    pub probe: &'static Probe,
    /// What became of it.
    pub outcome: Outcome,
    /// How many programs are attached for it: a second one to a function whose first can be kept from its work, a kretprobe
    /// beside a kprobe.
    pub programs: usize,
}

impl ProbeState {
    /// `fentry uncharge_folio`, `not needed: reason` or `none: reason`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.outcome {
            Outcome::Attached { backend, hook, .. } => format!("{} {hook}", backend.as_str()),
            Outcome::Needless(why) => format!("not needed: {why}"),
            Outcome::Missing(reason) => format!("none: {reason}"),
        }
    }

    /// The same, with what was refused before, for a recording's header.
    #[must_use]
    pub fn in_header(&self) -> String {
        let mut text = self.describe();
        if let Outcome::Attached { refused, .. } = &self.outcome {
            text.extend(refused.iter().map(|reason| format!(", not by {reason}")));
        }
        text
    }
}

/// How the names of second programs end: see `hooks.rs` of the kernel side.
const SECOND: [&str; 2] = ["_again", "_always"];

/// What attaching needs.
pub(super) struct Attacher<'a> {
    pub ebpf: &'a mut Ebpf,
    pub types: &'a KernelTypes,
    pub btf: &'a Btf,
    /// How to attach to functions, in order.
    pub functions: &'static [Backend],
    pub cgroup_v1: bool,
    pub v1_accounts_swap: bool,
    /// Attach each function's second program, too, and not only those of functions that interrupts call.
    pub again: bool,
}

impl Attacher<'_> {
    /// Attaches a group's probes, or none of them when one fails that the group needs.
    pub fn group(&mut self, group: Group) -> Result<(Vec<Attached>, Vec<ProbeState>), ProbeError> {
        let mut attached = Vec::new();
        let mut states = Vec::new();
        for probe in PROBES.iter().filter(|probe| probe.group == group) {
            let before = attached.len();
            let outcome = match (self.probe(probe), probe.need) {
                (Ok((more, outcome)), _) => {
                    attached.extend(more);
                    outcome
                }
                (Err(reason), Need::Required) => {
                    return Err(ProbeError::Required {
                        probe: probe.name,
                        reason,
                    });
                }
                (Err(reason), Need::Optional(lost)) => Outcome::Missing(format!("{reason}: {lost}")),
            };
            states.push(ProbeState {
                probe,
                outcome,
                programs: attached.len() - before,
            });
        }
        Ok((attached, states))
    }

    /// Tries a probe's candidates in order.
    fn probe(&mut self, probe: &Probe) -> Result<(Vec<Attached>, Outcome), String> {
        if self.cgroup_v1 && probe.v2_only {
            let outcome = Outcome::Needless("with v1, usage does not include it (memory.kmem.tcp)");
            return Ok((Vec::new(), outcome));
        }
        if probe.v1_swap_only && !self.v1_accounts_swap {
            let outcome =
                Outcome::Needless("only with v1 and its accounting of swap is a page given back before it is freed");
            return Ok((Vec::new(), outcome));
        }
        let (types, functions) = (self.types, self.functions);
        let (attached, outcome) = first_that_works(probe, types, functions, |candidate, backend| {
            self.candidate(candidate, backend)
        })?;
        Ok((attached.unwrap_or_default(), outcome))
    }

    fn candidate(&mut self, candidate: &Candidate, backend: Backend) -> Result<Vec<Attached>, String> {
        let name = candidate.program;
        let programs = match (backend, candidate.hook) {
            // The return first: a call that is seen to begin is then seen to end.
            (Backend::Kprobe, Hook::Exit(..)) => vec![format!("{name}_kretprobe"), format!("{name}_kprobe")],
            (Backend::Kprobe, _) => vec![format!("{name}_kprobe")],
            // What is attached last runs first. kernel: kernel/bpf/trampoline.c bpf_trampoline_link_prog() (5.7 to 7.3)
            (Backend::Fentry, _) => self.second(name).into_iter().chain([name.to_owned()]).collect(),
            _ => vec![name.to_owned()],
        };
        let mut attached = Vec::new();
        for (index, program) in programs.iter().enumerate() {
            let mut one = self.program(program, candidate.hook.name()).inspect_err(|_| {
                // Another candidate may use those before it, too.
                programs[..index].iter().for_each(|done| self.unload(done));
            })?;
            // What a second program is kept from, the first has done.
            one.misses_matter = !SECOND.iter().any(|end| program.ends_with(end));
            attached.push(one);
        }
        Ok(attached)
    }

    /// The second program of a function, where it is to have one.
    fn second(&self, name: &str) -> Option<String> {
        let [again, always] = SECOND.map(|end| format!("{name}{end}"));
        if self.ebpf.program(&always).is_some() {
            return Some(always);
        }
        self.again.then_some(again)
    }

    fn program(&mut self, program: &str, hook: &str) -> Result<Attached, String> {
        let program = self
            .ebpf
            .program_mut(program)
            .ok_or_else(|| format!("no program {program}"))?;
        load_and_attach(program, self.btf, hook).map_err(|error| {
            unload(program);
            explain(hook, &error)
        })
    }
}

impl Attacher<'_> {
    fn unload(&mut self, program: &str) {
        if let Some(program) = self.ebpf.program_mut(program) {
            unload(program);
        }
    }
}

fn load_and_attach(program: &mut Program, btf: &Btf, hook: &str) -> Result<Attached, ProgramError> {
    let link = match &mut *program {
        Program::FEntry(program) => {
            program.load(hook, btf)?;
            let link = program.attach()?;
            Link::Fd(program.take_link(link)?.into())
        }
        Program::FExit(program) => {
            program.load(hook, btf)?;
            let link = program.attach()?;
            Link::Fd(program.take_link(link)?.into())
        }
        Program::BtfTracePoint(program) => {
            program.load(hook, btf)?;
            let link = program.attach()?;
            Link::Fd(program.take_link(link)?.into())
        }
        Program::RawTracePoint(program) => {
            program.load()?;
            let link = program.attach(hook)?;
            Link::Fd(program.take_link(link)?.into())
        }
        Program::KProbe(program) => {
            program.load()?;
            let link = program.attach(hook, 0)?;
            Link::Kprobe(program.take_link(link)?)
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Attached::new(program, link)
}

/// Undoes a load: another candidate may use the same program, for another function. A program that was not loaded is
/// fine.
fn unload(program: &mut Program) {
    let _ = match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        _ => Ok(()),
    };
}

/// Why a program was refused, in words.
pub(super) fn explain(name: &str, error: &ProgramError) -> String {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM) => format!("{name} is refused by this kernel (EPERM)"),
        Some(libc::EBUSY) => format!("{name} cannot be traced (EBUSY)"),
        Some(libc::ENOENT) => format!("{name} is not there to attach to (ENOENT)"),
        // kernel: BPF_MAX_TRAMP_LINKS, include/linux/bpf.h
        Some(libc::E2BIG) => format!("{name} has as many programs as it can have (E2BIG)"),
        // kernel: ENOTSUPP, include/linux/errno.h
        Some(524) => format!("{name} has too many arguments to be traced (ENOTSUPP)"),
        _ => match error {
            ProgramError::LoadError { verifier_log, .. } => {
                log::debug!("{name}: {verifier_log}");
                let log = verifier_log.to_string();
                let noise = ["processed ", "stack depth ", "verification time "];
                let last = log
                    .lines()
                    .rev()
                    .find(|line| !noise.iter().any(|prefix| line.starts_with(prefix)))
                    .unwrap_or("");
                format!("{name} is refused by the verifier: {last}")
            }
            _ => format!("{name}: {}", chain(error)),
        },
    }
}

pub(super) fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

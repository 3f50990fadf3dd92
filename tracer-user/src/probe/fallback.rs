//! Falling back: for each probe the first candidate, by the first backend, that the kernel lets us attach; and where a
//! group of probes cannot count, the next group. What was refused on the way is kept, to be told.

use super::attach::{Outcome, ProbeState};
use super::btf::KernelTypes;
use super::plan::{Backend, Candidate, Hook, Probe};

/// Tries a probe's candidates in order: those that fit this kernel's types by each backend, with `attach`, which says why
/// where it cannot. What the first success gave, if there was anything to attach to.
///
/// # Errors
/// Says for each candidate why not.
pub(super) fn first_that_works<T>(
    probe: &Probe,
    types: &KernelTypes,
    functions: &'static [Backend],
    mut attach: impl FnMut(&Candidate, Backend) -> Result<T, String>,
) -> Result<(Option<T>, Outcome), String> {
    let mut unfit = Vec::new();
    let mut refused = Vec::new();
    for candidate in probe.candidates {
        if let Err(reason) = candidate.check(types) {
            unfit.push(reason);
            continue;
        }
        let hook = candidate.hook.name();
        for &backend in backends(candidate.hook, functions) {
            match attach(candidate, backend) {
                Ok(attached) => return Ok((Some(attached), Outcome::Attached { backend, hook, refused })),
                Err(reason) => refused.push(format!("{}: {reason}", backend.as_str())),
            }
        }
        if let Hook::Nothing(why) = candidate.hook {
            return Ok((None, Outcome::Needless(why)));
        }
    }
    refused.extend(unfit);
    Err(refused.join(", or "))
}

const fn backends(hook: Hook, functions: &'static [Backend]) -> &'static [Backend] {
    match hook {
        Hook::Entry(..) | Hook::Exit(..) => functions,
        Hook::Tracepoint(..) | Hook::RawTracepoint(_) => &[Backend::Tracepoint],
        Hook::Nothing(_) => &[],
    }
}

/// Has what counts the charges tell why the groups that come before it do not.
pub(super) fn passed_over(states: &mut [ProbeState], groups: Vec<String>) {
    let mut outcomes = states.iter_mut().map(|state| &mut state.outcome);
    let counts = outcomes.find_map(|outcome| match outcome {
        Outcome::Attached { refused, .. } => Some(refused),
        _ => None,
    });
    if let Some(refused) = counts {
        refused.splice(..0, groups);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::programs::ProgramError;
    use aya::sys::SyscallError;
    use aya_obj::VerifierLog;

    use super::super::attach::explain;
    use super::super::plan::{BackendChoice, Group};
    use super::super::synthetic;
    use super::super::table::PROBES;
    use super::*;

    const BOTH: &[Backend] = BackendChoice::Auto.functions();
    const PROBE: Probe = Probe::required(
        "probe",
        Group::Functions,
        const {
            &[
                Candidate::entry("first", "absent", &["int"]),
                Candidate::entry("first", "renamed", &["char *"]),
                Candidate::exit("second", "there", &["int"]),
                Candidate::tracepoint("third", "traced", &["int"]),
            ]
        },
    );

    fn types() -> KernelTypes {
        synthetic::kernel("fn int renamed(int)\nfn int there(int)\ntp traced(int)\n")
    }

    /// What the kernel answers to an attempt to attach.
    fn answer(errno: i32) -> ProgramError {
        ProgramError::SyscallError(SyscallError {
            call: "bpf_link_create",
            io_error: io::Error::from_raw_os_error(errno),
        })
    }

    /// What becomes of the probe where each attempt gets its answer, and the attempts.
    fn play(answers: &[Option<ProgramError>]) -> (Result<Outcome, String>, Vec<(&'static str, Backend)>) {
        let mut attempts = Vec::new();
        let result = first_that_works(&PROBE, &types(), BOTH, |candidate, backend| {
            let answer = &answers[attempts.len()];
            attempts.push((candidate.program, backend));
            answer
                .as_ref()
                .map_or(Ok(()), |error| Err(explain(candidate.hook.name(), error)))
        });
        (result.map(|(_, outcome)| outcome), attempts)
    }

    #[test]
    fn any_refusal_leads_to_the_next_backend_and_is_told() {
        for (errno, told) in [
            (libc::EPERM, "fentry: there is refused by this kernel (EPERM)"),
            (libc::EBUSY, "fentry: there cannot be traced (EBUSY)"),
            (libc::ENOENT, "fentry: there is not there to attach to (ENOENT)"),
            (524, "fentry: there has too many arguments to be traced (ENOTSUPP)"),
            (libc::E2BIG, "fentry: there has as many programs as it can have (E2BIG)"),
        ] {
            let (outcome, attempts) = play(&[Some(answer(errno)), None]);
            let expected = Outcome::Attached {
                backend: Backend::Kprobe,
                hook: "there",
                refused: vec![told.to_owned()],
            };
            assert_eq!(outcome, Ok(expected));
            assert_eq!(attempts, [("second", Backend::Fentry), ("second", Backend::Kprobe)]);
        }
    }

    #[test]
    fn a_program_that_the_verifier_refuses_and_one_that_is_refused_by_both_lead_to_the_next_candidate() {
        let refused = ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(libc::EACCES),
            verifier_log: VerifierLog::new("0: R1=ctx\nR1 invalid mem access\nprocessed 1 insns\n".to_owned()),
        };
        let (outcome, attempts) = play(&[Some(refused), Some(answer(libc::EPERM)), None]);
        let refused = vec![
            "fentry: there is refused by the verifier: R1 invalid mem access".to_owned(),
            "kprobe: there is refused by this kernel (EPERM)".to_owned(),
        ];
        let expected = Outcome::Attached {
            backend: Backend::Tracepoint,
            hook: "traced",
            refused,
        };
        assert_eq!(outcome, Ok(expected));
        assert_eq!(attempts[2], ("third", Backend::Tracepoint));
    }

    #[test]
    fn where_nothing_works_every_reason_is_told() {
        let (outcome, _) = play(&[
            Some(answer(libc::EBUSY)),
            Some(answer(libc::ENOENT)),
            Some(answer(libc::EPERM)),
        ]);
        let reason = outcome.unwrap_err();
        for part in [
            "fentry: there cannot be traced (EBUSY)",
            "kprobe: there is not there to attach to (ENOENT)",
            "tracepoint: traced is refused by this kernel (EPERM)",
            "this kernel has no absent",
            "renamed takes (int), not (char *)",
        ] {
            assert!(reason.contains(part), "no '{part}' in {reason}");
        }
    }

    #[test]
    fn what_counts_tells_why_another_group_does_not() {
        let attached = |refused: &[&str]| Outcome::Attached {
            backend: Backend::Tracepoint,
            hook: "mod_memcg_lruvec_state",
            refused: refused.iter().map(|&text| text.to_owned()).collect(),
        };
        let state = |outcome| ProbeState {
            probe: &PROBES[0],
            outcome,
            programs: 1,
        };
        let mut states = [state(Outcome::Missing("gone".to_owned())), state(attached(&["own"]))];
        passed_over(&mut states, vec!["function probes: EPERM".to_owned()]);
        assert_eq!(states[1].outcome, attached(&["function probes: EPERM", "own"]));
        assert_eq!(
            states[1].in_header(),
            "tracepoint mod_memcg_lruvec_state, not by function probes: EPERM, not by own"
        );
        assert_eq!(states[0].in_header(), "none: gone");
    }
}

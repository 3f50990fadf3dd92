//! Advice in a sentence.

use super::{Advice, LookAt, Outcome};
use crate::escape;
use crate::role::Role;
use crate::units::Bytes;

/// What to do, or why nothing can be said. Safe to print to a terminal.
pub(super) fn verdict(advice: &Advice) -> String {
    match advice.outcome {
        Outcome::NotEnoughData => {
            let mut why: Vec<&str> = advice
                .recordings
                .iter()
                .flat_map(|recording| recording.missing.iter().copied())
                .collect();
            why.dedup();
            format!("not enough data: {}", why.join("; "))
        }
        Outcome::NoReserveWillDo => {
            let who = advice.look_at.as_ref().map_or_else(|| "overhead".to_owned(), grew);
            format!(
                "no reserve will do: {who} and had not levelled off when the kernel killed the VM; a larger reserve \
                 only puts the kill off, so look there instead"
            )
        }
        Outcome::Bounded => limit(advice),
        Outcome::StillGrowing => {
            let who = advice.look_at.as_ref().map_or_else(|| "overhead".to_owned(), grew);
            format!(
                "{}; but {who} and had not levelled off when the recording ended: a longer load, or a leak, needs more",
                limit(advice)
            )
        }
    }
}

fn limit(advice: &Advice) -> String {
    let Some((need, advised, minimum)) = advice
        .need
        .as_ref()
        .and_then(|need| Some((need, need.advised_limit?, need.minimum_limit?)))
    else {
        return "nothing can be said".to_owned();
    };
    let now = match need.limit {
        None => "there is no limit now".to_owned(),
        Some(limit) if limit >= advised => format!("the limit of {} is enough", Bytes(limit)),
        Some(limit) if limit >= minimum => {
            format!("the limit of {} holds it, with less margin", Bytes(limit))
        }
        Some(limit) => format!("the limit of {} is {} below that", Bytes(limit), Bytes(advised - limit)),
    };
    format!(
        "a limit of {} holds what was recorded with {}% of margin on overhead, {} is the least; {now}",
        Bytes(advised),
        need.margin_percent,
        Bytes(minimum),
    )
}

fn grew(look_at: &LookAt) -> String {
    format!(
        "{} grew {} in {:.0} s",
        who(&look_at.role, &look_at.process),
        Bytes(look_at.growth),
        look_at.seconds.max(1.0)
    )
}

/// A role and its process as they stand in a sentence.
pub(super) fn who(role: &Role, process: &str) -> String {
    let name = match role {
        Role::Helper(name) | Role::Kernel(name) | Role::Other(name) => name.clone(),
        Role::Vcpu(number) => format!("QEMU's vCPU {number}"),
        role if process == "qemu" => format!("QEMU's {role}"),
        role => format!("{role} of {process}"),
    };
    escape::terminal(&name).into_owned()
}

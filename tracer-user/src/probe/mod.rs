//! Kernel features, backends, loading and draining of the eBPF programs. The only room that touches aya.

mod accounts;
mod attach;
mod attached;
mod btf;
mod constants;
mod drain;
#[cfg(test)]
mod drift_tests;
mod fallback;
mod kernel_table;
mod live;
mod mapped;
mod missed;
mod plan;
mod preemption;
mod record;
mod singles;
#[cfg(test)]
mod synthetic;
mod sys;
mod table;
mod tracer;
mod watches;

pub use attach::{Outcome, ProbeState};
pub use btf::{KernelTypes, TypesError};
pub use kernel_table::{Unresolved, absent, resolve_offsets};
pub use live::{LiveChoice, LiveState, room};
pub use plan::{Backend, BackendChoice, Candidate, Group, Hook, Need, Probe};
pub use record::{DecodeError, Record, StackSample, decode, decode_stack};
pub use table::PROBES;
pub use tracer::{Options, ProbeError, Tracer, boot_ns, page_size};

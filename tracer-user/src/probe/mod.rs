//! Kernel features, backends, loading and draining of the eBPF programs. The only room that touches aya.

mod attached;
mod btf;
mod drain;
mod kernel_table;
mod plan;
mod record;
mod tracer;

pub use btf::{KernelTypes, TypesError};
pub use kernel_table::{Unresolved, resolve_offsets};
pub use plan::{Backend, BackendChoice, Group, Need, PROBES, Probe};
pub use record::{DecodeError, Record, decode};
pub use tracer::{Options, ProbeError, ProbeState, Tracer, boot_ns, page_size};

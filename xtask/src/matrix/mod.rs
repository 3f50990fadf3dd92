//! The matrix: every kernel, cgroup version and backend, what was run there, and the document made of it.

pub mod result;
pub mod table;

use crate::vm::Cgroup;
use crate::vm::suite::Cell;

/// All cells: the kernel line, the versions of memory cgroups that Debian builds it with, and the backends that it has.
/// The memcg tracepoints came with 6.15.
const KERNELS: [(&str, &[Cgroup], &[&str]); 5] = [
    ("5.10", &[Cgroup::V2, Cgroup::V1], &["fentry", "kprobe"]),
    ("6.1", &[Cgroup::V2, Cgroup::V1], &["fentry", "kprobe"]),
    ("6.12", &[Cgroup::V2], &["fentry", "kprobe"]),
    ("7.2", &[Cgroup::V2], &["fentry", "kprobe", "tracepoint"]),
    ("7.3", &[Cgroup::V2], &["fentry", "kprobe", "tracepoint"]),
];

/// Every cell.
#[must_use]
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (kernel, versions, backends) in KERNELS {
        for version in versions {
            cells.extend(backends.iter().map(|backend| Cell::new(kernel, *version, backend)));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::kernel::LINES;

    #[test]
    fn every_kernel_line_has_its_cells() {
        let cells = cells();
        for line in LINES {
            let of = |version| {
                cells
                    .iter()
                    .any(|cell| cell.kernel == line.name && cell.cgroup == version)
            };
            assert!(of(Cgroup::V2), "{}", line.name);
            assert_eq!(of(Cgroup::V1), line.cgroup_v1, "{}", line.name);
        }
        assert_eq!(cells.iter().filter(|cell| cell.backend == "tracepoint").count(), 2);
    }
}

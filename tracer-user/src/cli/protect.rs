//! The tracer must survive the OOM it watches.

/// kernel: OOM_SCORE_ADJ_MIN is -1000 and means never; -999 leaves the last word to the kernel (include/uapi/linux/oom.h).
const SCORE: &str = "-999";

/// Makes this process an unlikely victim and keeps its pages in memory. Without the privilege it goes on unprotected,
/// with a warning: recording matters more.
pub fn from_oom_killer() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", SCORE) {
        log::warn!("cannot lower oom_score_adj: {error}");
    }
    use nix::sys::mman::{MlockAllFlags, mlockall};
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        log::warn!("cannot lock memory: {error}");
    }
}

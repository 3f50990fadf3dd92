//! How often the kernel left a program out where it should have run.

use std::fs::{read_dir, read_to_string};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::sys;

/// Times that a program did not run since the same program (as a kprobe: any) was running on that CPU: an interrupt in the
/// middle of it. 0 where the kernel does not tell.
///
/// kernel: kernel/bpf/syscall.c `bpf_prog_show_fdinfo()` (5.12 and later)
pub(super) fn by_the_program(program: BorrowedFd<'_>) -> u64 {
    fdinfo(program.as_raw_fd()).map_or(0, |info| value(&info, "recursion_misses").unwrap_or(0))
}

/// The descriptor of the link that attaches a kprobe, among this process's own; `None` where the kernel makes none. It has just
/// been made, and is looked for among the latest first.
///
/// kernel: kernel/bpf/syscall.c `bpf_link_show_fdinfo()` (5.8 and later), of kprobes from 5.15 on
pub(super) fn link_of(program: BorrowedFd<'_>) -> Option<RawFd> {
    let id = value(&fdinfo(program.as_raw_fd())?, "prog_id")?;
    let numbers = read_dir("/proc/self/fdinfo").ok()?.flatten();
    let mut descriptors: Vec<RawFd> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable_by(|one, other| other.cmp(one));
    descriptors
        .into_iter()
        .find(|descriptor| fdinfo(*descriptor).is_some_and(|info| attaches(&info, id)))
}

/// Times that a kprobe was left out before its program could tell: any other was being handled on that CPU. 0 where the
/// kernel does not tell.
///
/// kernel: kernel/kprobes.c `kprobes_inc_nmissed_count()`, told by `bpf_perf_link_fill_kprobe()` (6.7 and later)
pub(super) fn by_the_kprobe(link: RawFd) -> u64 {
    let mut info = PerfLinkInfo::default();
    let mut query = InfoQuery {
        descriptor: link.cast_unsigned(),
        length: size_of::<PerfLinkInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the query is as long as told; the kernel writes at most as much as is told there into the answer, which outlives
    // the call, and takes any bits.
    let told = unsafe { sys::bpf(sys::OBJ_GET_INFO_BY_FD, &mut query) };
    if told.is_ok() && info.link_type == LINK_TYPE_PERF_EVENT && info.event_type == KPROBE {
        info.missed
    } else {
        0
    }
}

/// kernel: include/uapi/linux/bpf.h enum bpf_link_type (5.15 to 7.3)
const LINK_TYPE_PERF_EVENT: u32 = 7;
/// kernel: the same, enum bpf_perf_event_type (6.6 to 7.3)
const KPROBE: u32 = 3;

/// kernel: the same, union bpf_attr, its member `info` (4.13 to 7.3)
#[repr(C)]
struct InfoQuery {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// kernel: the same, struct bpf_link_info of a perf event that is a kprobe (6.7 to 7.3; before, its end is missing)
#[repr(C)]
#[derive(Debug, Default)]
struct PerfLinkInfo {
    link_type: u32,
    id: u32,
    program: u32,
    padding: u32,
    event_type: u32,
    padding_too: u32,
    /// Where the function's name should go: nowhere.
    name: u64,
    name_length: u32,
    offset: u32,
    address: u64,
    missed: u64,
}

const _: () = assert!(size_of::<PerfLinkInfo>() == 56);

fn fdinfo(descriptor: RawFd) -> Option<String> {
    read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()
}

/// The number in a line `NAME:<tab>NUMBER`.
fn value(info: &str, name: &str) -> Option<u64> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

fn attaches(info: &str, program: u64) -> bool {
    value(info, "link_id").is_some() && value(info, "prog_id") == Some(program)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn misses_are_read_where_the_kernel_tells_them() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t7\nverified_insns:\t5\n";
        assert_eq!(value(info, "recursion_misses"), Some(7));
        assert_eq!(value("prog_type:\t26\n", "recursion_misses"), None);
    }

    #[test]
    fn a_link_is_known_by_its_program() {
        let link = "pos:\t0\nlink_type:\tperf\nlink_id:\t31\nprog_tag:\tab\nprog_id:\t12\n";
        assert!(attaches(link, 12) && !attaches(link, 31));
        assert!(!attaches("pos:\t0\nprog_type:\t2\nprog_id:\t12\n", 12));
    }

    #[test]
    fn what_is_no_link_has_missed_nothing() {
        let file = File::open("/proc/self/maps").unwrap();
        assert_eq!(by_the_kprobe(file.as_raw_fd()), 0);
        assert_eq!((by_the_program(file.as_fd()), link_of(file.as_fd())), (0, None));
    }
}

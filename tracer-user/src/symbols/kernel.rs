//! Names of the kernel's functions.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolizer};

use super::kept;

/// An address this far behind a symbol does not belong to it: kallsyms knows no sizes.
const MAX_FUNCTION: usize = 1 << 20;
/// Addresses whose names are remembered.
const MAX_KNOWN: usize = 64 << 10;

/// What a stack begins with, innermost: the probe that takes it.
const PROBE: [&str; 16] = [
    "bpf_",
    "__bpf_",
    "get_callchain_entry_for_task",
    "stack_trace_save",
    "arch_stack_walk",
    "__traceiter_",
    "__probestub_",
    "kprobe_",
    "aggr_pre_handler",
    "ftrace_",
    "arch_ftrace_",
    "kretprobe_",
    "__kretprobe_",
    "rethook_",
    "arch_rethook_",
    "__ftrace_",
];
/// The probe takes no more frames than this.
const PROBE_FRAMES: usize = 16;

/// The running kernel's symbols, from /proc/kallsyms.
pub(super) struct KernelNames {
    symbolizer: Symbolizer,
    source: Source<'static>,
    known: HashMap<u64, Option<String>>,
}

impl KernelNames {
    pub(super) fn new() -> Self {
        let kernel = Kernel {
            kallsyms: MaybeDefault::Default,
            vmlinux: MaybeDefault::None,
            kaslr_offset: None,
            debug_syms: false,
            ..Kernel::default()
        };
        Self {
            symbolizer: Symbolizer::builder()
                .enable_code_info(false)
                .enable_inlined_fns(false)
                .build(),
            source: Source::Kernel(kernel),
            known: HashMap::new(),
        }
    }

    /// Name of the function that an address lies in; none where the kernel does not tell its addresses.
    fn name(&mut self, address: u64) -> Option<String> {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        let found = catch_unwind(AssertUnwindSafe(|| {
            let found = self.symbolizer.symbolize_single(&self.source, Input::AbsAddr(address));
            let symbol = found.ok()?.into_sym()?;
            (symbol.addr != 0 && symbol.offset < MAX_FUNCTION).then(|| kept(&symbol.name))
        }));
        let name = found.ok().flatten();
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(address, name.clone());
        name
    }

    /// Names of a stack's functions, innermost first, without what the probe itself put there.
    pub(super) fn names(&mut self, stack: &[u64]) -> Vec<Option<String>> {
        // These are return addresses: the call stands before them.
        let names: Vec<Option<String>> = stack.iter().map(|address| self.name(address.wrapping_sub(1))).collect();
        let probe = probe_frames(&names);
        names.into_iter().skip(probe).collect()
    }
}

/// How many frames the probe takes: up to the last of its functions among the first frames.
fn probe_frames(names: &[Option<String>]) -> usize {
    let of_probe = |name: &Option<String>| {
        let name = name.as_deref();
        name.is_some_and(|name| PROBE.iter().any(|prefix| name.starts_with(prefix)))
    };
    names
        .iter()
        .take(PROBE_FRAMES)
        .rposition(of_probe)
        .map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Option<String>> {
        text.split(' ')
            .map(|name| (name != "?").then(|| name.to_owned()))
            .collect()
    }

    #[test]
    fn the_probe_is_left_out_and_nothing_else() {
        let tracepoint = names(
            "bpf_get_task_stack bpf_prog_4c1_lruvec_stat bpf_trace_run3 __traceiter_mod_memcg_lruvec_state \
             mod_memcg_lruvec_state folio_add_new_anon_rmap do_anonymous_page",
        );
        assert_eq!(probe_frames(&tracepoint), 4);
        let fentry = names("bpf_prog_9_place_anon ? bpf_trampoline_6442 folio_add_new_anon_rmap");
        assert_eq!(probe_frames(&fentry), 3);
        assert_eq!(probe_frames(&names("charge_memcg __mem_cgroup_charge")), 0);
        // A charge on behalf of an eBPF program of somebody else, far out.
        let other = format!("{} bpf_prog_of_another", ["vfs_read"; 20].join(" "));
        assert_eq!(probe_frames(&names(&other)), 0);
    }

    #[test]
    fn functions_of_this_kernel_have_names() {
        let kallsyms = std::fs::read_to_string("/proc/kallsyms").unwrap();
        let line = kallsyms.lines().find(|line| line.ends_with(" T vfs_read")).unwrap();
        let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
        assert_ne!(address, 0, "run as root");
        let mut kernel = KernelNames::new();
        assert_eq!(kernel.names(&[address + 4]), [Some("vfs_read".to_owned())]);
        assert_eq!(kernel.names(&[0x1000]), [None], "no address of the kernel");
    }
}

//! The one table of probes. Prototypes: the kernel versions are noted at the programs in tracer-ebpf.

use super::plan::{Candidate, Group, Probe};

const FOLIO: &str = "struct folio *";
const PAGE: &str = "struct page *";
const MEMCG: &str = "struct mem_cgroup *";
const OBJCG: &str = "struct obj_cgroup *";
const MAPPING: &str = "struct address_space *";
const MM: &str = "struct mm_struct *";
const VMA: &str = "struct vm_area_struct *";
const TASK: &str = "struct task_struct *";
const SOCK: &str = "struct sock *";
const CSS: &str = "struct cgroup_subsys_state *";
const GATHER: &str = "struct uncharge_gather *";
const GFP: &str = "gfp_t";
const ULONG: &str = "long unsigned int";
const UINT: &str = "unsigned int";
const NODE_STAT: &str = "enum node_stat_item";

/// Kernels where each slab object is counted by this function, and not by those that charge and give back objects.
const OBJECT_STOCK: &str = "__account_obj_stock";
const OBJECT_STOCK_ARGUMENTS: &[&str] = &[
    OBJCG,
    "struct obj_stock_pcp *",
    "int",
    "struct pglist_data *",
    NODE_STAT,
];

/// Functions that count a page of kernel memory for memory.stat, newest first.
const COUNT_PAGES: &[&str] = &[
    "lruvec_stat_mod_folio",
    "__lruvec_stat_mod_folio",
    "__mod_lruvec_page_state",
];

/// What a probe can be attached to, in order.
macro_rules! candidates {
    ($($candidate:expr),+ $(,)?) => { const { &[$($candidate),+] } };
}

/// Every probe.
pub const PROBES: &[Probe] = &[
    Probe::required(
        "charge_folio",
        Group::Functions,
        candidates![
            // Before 5.15 a static function of this name had a memcg as its second argument: the names do not tell.
            Candidate::exit("charge_folio", "__mem_cgroup_charge", &[FOLIO, MM, GFP]),
            Candidate::exit("charge_folio", "__mem_cgroup_charge", &[PAGE, MM, GFP]),
            Candidate::exit("charge_folio", "mem_cgroup_charge", &[PAGE, MM, GFP]),
        ],
    ),
    Probe::optional(
        "memcg_made",
        Group::Functions,
        "every charge on this node costs more",
        candidates![Candidate::exit("memcg_made", "mem_cgroup_css_online", &[CSS])],
    ),
    Probe::optional(
        "memcg_left",
        Group::Functions,
        "every charge on this node costs more",
        candidates![Candidate::exit("memcg_left", "mem_cgroup_css_offline", &[CSS])],
    ),
    Probe::optional(
        "charge_swapin",
        Group::Functions,
        "memory that is swapped in shows as unexplained",
        candidates![
            Candidate::exit(
                "charge_swapin",
                "mem_cgroup_swapin_charge_folio",
                &[FOLIO, MM, GFP, "swp_entry_t"],
            ),
            Candidate::exit(
                "charge_swapin",
                "mem_cgroup_swapin_charge_folio",
                &[FOLIO, "short unsigned int", MM, GFP],
            ),
            Candidate::exit(
                "charge_swapin",
                "mem_cgroup_swapin_charge_page",
                &[PAGE, MM, GFP, "swp_entry_t"],
            ),
            Candidate::nothing("swapping in is charged as any page")
                .without(&["mem_cgroup_swapin_charge_folio", "mem_cgroup_swapin_charge_page",]),
        ],
    ),
    Probe::optional(
        "charge_hugetlb",
        Group::Functions,
        "huge pages of hugetlbfs show as unexplained where they are charged to memory (memory_hugetlb_accounting)",
        candidates![
            Candidate::exit("charge_hugetlb", "mem_cgroup_charge_hugetlb", &[FOLIO, GFP]),
            Candidate::exit("charge_hugetlb_mm", "mem_cgroup_charge_hugetlb", &[FOLIO, MM, GFP]),
            Candidate::entry("commit_hugetlb", "mem_cgroup_commit_charge", &[FOLIO, MEMCG]),
            Candidate::nothing("this kernel charges no huge pages of hugetlbfs to memory")
                .without(&["mem_cgroup_charge_hugetlb", "mem_cgroup_hugetlb_try_charge",]),
        ],
    ),
    Probe::optional(
        "charge_replacement",
        Group::Functions,
        "pages that migrate show as freed",
        candidates![
            Candidate::entry("charge_replacement", "mem_cgroup_replace_folio", &[FOLIO, FOLIO]),
            Candidate::entry("charge_replacement", "mem_cgroup_migrate", &[FOLIO, FOLIO])
                .without(&["mem_cgroup_replace_folio"]),
            Candidate::entry("charge_replacement", "mem_cgroup_migrate", &[PAGE, PAGE])
                .without(&["mem_cgroup_replace_folio"]),
        ],
    ),
    Probe::required(
        "charge_kernel_pages",
        Group::Functions,
        candidates![Candidate::exit(
            "charge_kernel_pages",
            "__memcg_kmem_charge_page",
            &[PAGE, GFP, "int"],
        )],
    ),
    Probe::optional(
        "charge_objects",
        Group::Functions,
        "kernel objects (slab) show as unexplained",
        candidates![
            Candidate::entry("account_objects", OBJECT_STOCK, OBJECT_STOCK_ARGUMENTS),
            Candidate::exit("charge_objects", "obj_cgroup_charge", &[OBJCG, GFP, "size_t"]).without(&[OBJECT_STOCK]),
        ],
    ),
    Probe::optional(
        "charge_other_objects",
        Group::Functions,
        "per-CPU memory shows as unexplained",
        candidates![
            Candidate::exit("charge_other_objects", "obj_cgroup_charge", &[OBJCG, GFP, "size_t"]).with(OBJECT_STOCK),
            Candidate::nothing("charged as any object").without(&[OBJECT_STOCK]),
        ],
    ),
    Probe::optional(
        "charge_socket",
        Group::Functions,
        "socket buffers show as unexplained",
        candidates![
            Candidate::exit("charge_socket", "mem_cgroup_charge_skmem", &[MEMCG, UINT, GFP]),
            Candidate::exit("charge_socket_two", "mem_cgroup_charge_skmem", &[MEMCG, UINT]),
            Candidate::exit("charge_socket_of", "mem_cgroup_sk_charge", &[SOCK, UINT, GFP]),
        ],
    )
    .v2_only(),
    Probe::required(
        "uncharge_folio",
        Group::Functions,
        candidates![
            Candidate::entry("uncharge_folio", "uncharge_folio", &[FOLIO, GATHER]),
            Candidate::entry("uncharge_folio", "uncharge_page", &[PAGE, GATHER]),
        ],
    ),
    Probe::optional(
        "uncharge_swapped_out",
        Group::Functions,
        "memory that is swapped out shows as still there",
        candidates![
            Candidate::entry("swapped_out", "memcg1_swapout", &[FOLIO, "swp_entry_t"]),
            Candidate::entry("swapped_out", "mem_cgroup_swapout", &[FOLIO, "swp_entry_t"]),
            Candidate::entry("swapped_out", "mem_cgroup_swapout", &[PAGE, "swp_entry_t"]),
        ],
    )
    .where_swap_is_accounted_by_v1(),
    Probe::required(
        "uncharge_kernel_pages",
        Group::Functions,
        candidates![Candidate::entry(
            "uncharge_kernel_pages",
            "__memcg_kmem_uncharge_page",
            &[PAGE, "int"],
        )],
    ),
    Probe::optional(
        "uncharge_objects",
        Group::Functions,
        "kernel objects (slab) that are freed show as unexplained",
        candidates![
            Candidate::nothing("charge_objects sees them freed too").with(OBJECT_STOCK),
            Candidate::entry("refill_objects", "refill_obj_stock", &[OBJCG, UINT, "bool"]),
            Candidate::entry("uncharge_objects", "obj_cgroup_uncharge", &[OBJCG, "size_t"]),
        ],
    ),
    Probe::optional(
        "uncharge_other_objects",
        Group::Functions,
        "per-CPU memory that is freed shows as unexplained",
        candidates![
            Candidate::entry("uncharge_other_objects", "obj_cgroup_uncharge", &[OBJCG, "size_t"]).with(OBJECT_STOCK),
            Candidate::nothing("given back as any object").without(&[OBJECT_STOCK]),
        ],
    ),
    Probe::optional(
        "uncharge_socket",
        Group::Functions,
        "socket buffers that are freed show as unexplained",
        candidates![
            Candidate::entry("uncharge_socket", "mem_cgroup_uncharge_skmem", &[MEMCG, UINT]),
            Candidate::entry("uncharge_socket_of", "mem_cgroup_sk_uncharge", &[SOCK, UINT]),
        ],
    )
    .v2_only(),
    Probe::required(
        "place_anon",
        Group::Functions,
        candidates![
            Candidate::entry("place_anon", "folio_add_new_anon_rmap", &[FOLIO, VMA, ULONG, "rmap_t"]),
            Candidate::entry("place_anon", "folio_add_new_anon_rmap", &[FOLIO, VMA, ULONG]),
            Candidate::entry("place_anon", "page_add_new_anon_rmap", &[PAGE, VMA, ULONG]),
            Candidate::entry("place_anon", "page_add_new_anon_rmap", &[PAGE, VMA, ULONG, "bool"]),
        ],
    ),
    Probe::optional(
        "place_swapped_in",
        Group::Functions,
        "memory that is swapped in keeps no region",
        candidates![
            Candidate::entry("place_swapped_in", "page_add_anon_rmap", &[PAGE, VMA, ULONG, "rmap_t"]),
            Candidate::entry("place_swapped_in", "do_page_add_anon_rmap", &[PAGE, VMA, ULONG, "int"]),
            Candidate::nothing("place_anon sees memory that is swapped in too")
                .without(&["page_add_anon_rmap", "do_page_add_anon_rmap"]),
        ],
    ),
    Probe::optional(
        "place_shmem",
        Group::Functions,
        "guest RAM in memfds is not told from other shared memory",
        candidates![
            Candidate::exit(
                "place_shmem",
                "shmem_add_to_page_cache",
                &[FOLIO, MAPPING, ULONG, "void *", GFP],
            ),
            Candidate::exit(
                "place_shmem_charging",
                "shmem_add_to_page_cache",
                &[FOLIO, MAPPING, ULONG, "void *", GFP, MM],
            ),
            Candidate::exit(
                "place_shmem_charging",
                "shmem_add_to_page_cache",
                &[PAGE, MAPPING, ULONG, "void *", GFP, MM],
            ),
        ],
    ),
    Probe::optional(
        "unplace_shmem",
        Group::Functions,
        "guest RAM in memfds that is given back shows as overhead freed",
        candidates![
            Candidate::entry("unplace_shmem", "filemap_remove_folio", &[FOLIO]),
            Candidate::entry("unplace_shmem", "delete_from_page_cache", &[PAGE]),
        ],
    ),
    Probe::optional(
        "place_hugetlb",
        Group::Functions,
        "guest RAM in hugetlbfs is not told from other huge pages",
        candidates![
            Candidate::exit("place_hugetlb", "hugetlb_add_to_page_cache", &[FOLIO, MAPPING, ULONG]),
            Candidate::nothing("this kernel charges no huge pages of hugetlbfs to memory")
                .without(&["mem_cgroup_charge_hugetlb", "mem_cgroup_hugetlb_try_charge",]),
        ],
    ),
    Probe::optional(
        "place_hugetlb_anon",
        Group::Functions,
        "guest RAM in anonymous huge pages is not told from other huge pages",
        candidates![
            Candidate::entry("place_hugetlb_anon", "hugetlb_add_new_anon_rmap", &[FOLIO, VMA, ULONG]),
            Candidate::nothing("this kernel charges no huge pages of hugetlbfs to memory")
                .without(&["mem_cgroup_charge_hugetlb", "mem_cgroup_hugetlb_try_charge",]),
        ],
    ),
    Probe::optional(
        "place_file",
        Group::Functions,
        "page cache is not told by file",
        candidates![
            Candidate::exit(
                "place_file",
                "__filemap_add_folio",
                &[MAPPING, FOLIO, ULONG, GFP, "void **"],
            ),
            Candidate::exit(
                "place_file_page",
                "__add_to_page_cache_locked",
                &[PAGE, MAPPING, ULONG, GFP, "void **"],
            ),
        ],
    ),
    Probe::optional(
        "kind_of_pages",
        Group::Functions,
        "page tables (and KVM's) show as kmem",
        candidates![
            Candidate::entry("kind_of_pages", COUNT_PAGES[0], &[FOLIO, NODE_STAT, "int"]),
            Candidate::entry("kind_of_pages", COUNT_PAGES[1], &[FOLIO, NODE_STAT, "int"]),
            Candidate::entry("kind_of_pages", COUNT_PAGES[2], &[PAGE, NODE_STAT, "int"]),
        ],
    ),
    Probe::optional(
        "kind_of_stack",
        Group::Functions,
        "kernel stacks show as kmem",
        candidates![
            Candidate::entry("kind_of_stack", "account_kernel_stack", &[TASK, "int"]).without(COUNT_PAGES),
            Candidate::nothing("kind_of_pages sees kernel stacks too").with(COUNT_PAGES[0]),
            Candidate::nothing("kind_of_pages sees kernel stacks too").with(COUNT_PAGES[1]),
            Candidate::nothing("kind_of_pages sees kernel stacks too").with(COUNT_PAGES[2]),
        ],
    ),
    Probe::optional(
        "kind_of_memcg_stat",
        Group::Functions,
        "vmalloc shows as kmem, and per-CPU memory as slab",
        candidates![
            Candidate::entry("kind_of_memcg_stat", "__mod_memcg_state", &[MEMCG, "int", "int"]),
            Candidate::entry(
                "kind_of_memcg_stat",
                "__mod_memcg_state",
                &[MEMCG, "enum memcg_stat_item", "int"],
            ),
            Candidate::entry(
                "kind_of_memcg_stat",
                "mod_memcg_state",
                &[MEMCG, "enum memcg_stat_item", "int"],
            ),
        ],
    ),
    Probe::required(
        "move_charge",
        Group::Live,
        candidates![
            Candidate::entry("move_charge", "mem_cgroup_migrate", &[FOLIO, FOLIO]).with("mem_cgroup_replace_folio"),
            Candidate::nothing("charge_replacement sees pages that migrate").without(&["mem_cgroup_replace_folio"]),
        ],
    ),
    Probe::required(
        "lruvec_stat",
        Group::Tracepoints,
        candidates![Candidate::tracepoint(
            "lruvec_stat",
            "mod_memcg_lruvec_state",
            &[MEMCG, "int"],
        )],
    ),
    Probe::required(
        "memcg_stat",
        Group::Tracepoints,
        candidates![Candidate::tracepoint("memcg_stat", "mod_memcg_state", &[MEMCG, "int"])],
    ),
    Probe::optional(
        "fault_user",
        Group::Tracepoints,
        "guest RAM is told from overhead by smaps alone",
        candidates![Candidate::tracepoint("fault_user", "page_fault_user", &[ULONG])],
    ),
    Probe::optional(
        "fault_kernel",
        Group::Tracepoints,
        "guest RAM that the kernel touches is told by smaps alone",
        candidates![Candidate::tracepoint("fault_kernel", "page_fault_kernel", &[ULONG])],
    ),
    Probe::optional(
        "guest_fault_begin",
        Group::Tracepoints,
        "without KVM there are no nested page faults to follow",
        candidates![Candidate::raw_tracepoint("guest_fault_begin", "kvm_page_fault")],
    ),
    Probe::optional(
        "guest_fault_end",
        Group::Tracepoints,
        "without KVM there are no nested page faults to follow",
        candidates![Candidate::raw_tracepoint("guest_fault_end", "kvm_entry")],
    ),
    Probe::optional(
        "oom_kill",
        Group::Events,
        "a kill is told with its victim, but without the allocation that failed",
        candidates![Candidate::entry(
            "oom_kill",
            "oom_kill_process",
            &["struct oom_control *", "char *"],
        )],
    ),
    Probe::required(
        "oom_victim",
        Group::Events,
        candidates![
            Candidate::tracepoint("oom_victim", "mark_victim", &[TASK]),
            Candidate::entry("oom_victim_function", "mark_oom_victim", &[TASK]),
            Candidate::tracepoint("oom_victim_id", "mark_victim", &["int"]),
        ],
    ),
    Probe::optional(
        "reclaim_begin",
        Group::Events,
        "time spent reclaiming is not shown",
        candidates![
            Candidate::tracepoint("reclaim_begin", "mm_vmscan_memcg_reclaim_begin", &["int", GFP]),
            Candidate::tracepoint(
                "reclaim_begin_gfp_first",
                "mm_vmscan_memcg_reclaim_begin",
                &[GFP, "int", MEMCG],
            ),
        ],
    ),
    Probe::optional(
        "reclaim_end",
        Group::Events,
        "time spent reclaiming is not shown",
        candidates![Candidate::tracepoint(
            "reclaim_end",
            "mm_vmscan_memcg_reclaim_end",
            &[ULONG],
        )],
    ),
    Probe::required(
        "thread_exit",
        Group::Events,
        candidates![Candidate::tracepoint("thread_exit", "sched_process_exit", &[TASK])],
    ),
    Probe::optional(
        "thread_rename",
        Group::Events,
        "names are as old as the last charge",
        candidates![Candidate::tracepoint("thread_rename", "task_rename", &[TASK, "char *"])],
    ),
    Probe::optional(
        "process_exec",
        Group::Events,
        "new processes are found by polling",
        candidates![Candidate::tracepoint("process_exec", "sched_process_exec", &[TASK])],
    ),
];

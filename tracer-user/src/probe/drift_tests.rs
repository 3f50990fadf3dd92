//! The table of probes against kernels of the field that cannot be booted here.

use super::btf::KernelTypes;
use super::kernel_table::resolve_offsets;
use super::plan::{Group, Hook, Need};
use super::synthetic;
use super::table::PROBES;

const COMMON: &str = include_str!("../../../tests/fixtures/kernels/common.txt");
const SLE_5_14: &str = include_str!("../../../tests/fixtures/kernels/sle-5.14.21.txt");
const VANILLA_5_14: &str = include_str!("../../../tests/fixtures/kernels/vanilla-5.14.txt");
const UBUNTU_5_15: &str = include_str!("../../../tests/fixtures/kernels/ubuntu-5.15.txt");
const SLE_6_4: &str = include_str!("../../../tests/fixtures/kernels/sle-6.4.txt");
const UBUNTU_6_5: &str = include_str!("../../../tests/fixtures/kernels/ubuntu-6.5.txt");
const UBUNTU_6_8: &str = include_str!("../../../tests/fixtures/kernels/ubuntu-6.8.txt");

fn kernel(own: &str) -> KernelTypes {
    synthetic::kernel(&format!("{COMMON}{own}"))
}

/// The kernel without the lines that contain a text.
fn kernel_without(own: &str, text: &str) -> KernelTypes {
    let all = format!("{COMMON}{own}");
    let lines: Vec<&str> = all.lines().filter(|line| !line.contains(text)).collect();
    assert!(lines.len() < all.lines().count(), "{text} is in the fixture");
    synthetic::kernel(&lines.join("\n"))
}

/// What a probe is attached to, with its first argument: `PROGRAM on HOOK(FIRST ARGUMENT)`; or why to nothing.
fn chosen(types: &KernelTypes, probe: &str) -> String {
    let probe = PROBES.iter().find(|known| known.name == probe).expect("a probe");
    match probe.choose(types) {
        Err(reason) => format!("refused: {reason}"),
        Ok(candidate) => match candidate.hook {
            Hook::Nothing(_) => "not needed".to_owned(),
            Hook::Entry(name, arguments) | Hook::Exit(name, arguments) | Hook::Tracepoint(name, arguments) => {
                format!("{} on {name}({})", candidate.program, arguments.first().unwrap_or(&""))
            }
            Hook::RawTracepoint(name) => format!("{} on {name}", candidate.program),
        },
    }
}

#[track_caller]
fn expect(own: &str, expected: &[(&str, &str)]) {
    let types = kernel(own);
    resolve_offsets(&types).expect("all that is read");
    for &(probe, hook) in expected {
        assert_eq!(chosen(&types, probe), hook, "{probe}");
    }
    for probe in PROBES {
        let needed = probe.need == Need::Required && probe.group != Group::Tracepoints;
        if needed {
            probe
                .choose(&types)
                .unwrap_or_else(|reason| panic!("{}: {reason}", probe.name));
        }
    }
}

#[test]
fn sle_5_14_has_the_names_of_5_15_and_the_sockets_of_5_14() {
    let of_5_15 = [
        ("charge_folio", "charge_folio on __mem_cgroup_charge(struct page *)"),
        (
            "charge_swapin",
            "charge_swapin on mem_cgroup_swapin_charge_page(struct page *)",
        ),
        ("uncharge_folio", "uncharge_folio on uncharge_page(struct page *)"),
        (
            "uncharge_objects",
            "refill_objects on refill_obj_stock(struct obj_cgroup *)",
        ),
        (
            "charge_replacement",
            "charge_replacement on mem_cgroup_migrate(struct page *)",
        ),
        ("move_charge", "not needed"),
        ("charge_hugetlb", "not needed"),
        ("charge_other_objects", "not needed"),
        ("place_anon", "place_anon on page_add_new_anon_rmap(struct page *)"),
        (
            "place_shmem",
            "place_shmem_charging on shmem_add_to_page_cache(struct page *)",
        ),
        (
            "place_file",
            "place_file_page on __add_to_page_cache_locked(struct page *)",
        ),
        (
            "unplace_shmem",
            "unplace_shmem on delete_from_page_cache(struct page *)",
        ),
        (
            "kind_of_pages",
            "kind_of_pages on __mod_lruvec_page_state(struct page *)",
        ),
        ("kind_of_stack", "not needed"),
        // The tracepoint has no task to look into, so the function that holds it is taken.
        (
            "oom_victim",
            "oom_victim_function on mark_oom_victim(struct task_struct *)",
        ),
    ];
    let two_arguments = (
        "charge_socket",
        "charge_socket_two on mem_cgroup_charge_skmem(struct mem_cgroup *)",
    );
    let three_arguments = (
        "charge_socket",
        "charge_socket on mem_cgroup_charge_skmem(struct mem_cgroup *)",
    );
    expect(SLE_5_14, &of_5_15);
    expect(SLE_5_14, &[two_arguments]);
    expect(UBUNTU_5_15, &of_5_15);
    expect(UBUNTU_5_15, &[three_arguments]);
}

#[test]
fn a_function_of_the_same_name_that_takes_a_memcg_is_not_taken() {
    expect(
        VANILLA_5_14,
        &[("charge_folio", "charge_folio on mem_cgroup_charge(struct page *)")],
    );
    let without = kernel_without(VANILLA_5_14, " mem_cgroup_charge(");
    let refusal = chosen(&without, "charge_folio");
    assert!(refusal.starts_with("refused: "), "{refusal}");
    assert!(
        refusal.contains("__mem_cgroup_charge takes (struct page *, struct mem_cgroup *, gfp_t)"),
        "{refusal}"
    );
}

#[test]
fn folios_of_6_4_and_6_5() {
    for own in [SLE_6_4, UBUNTU_6_5] {
        expect(
            own,
            &[
                ("charge_folio", "charge_folio on __mem_cgroup_charge(struct folio *)"),
                (
                    "charge_swapin",
                    "charge_swapin on mem_cgroup_swapin_charge_folio(struct folio *)",
                ),
                (
                    "charge_replacement",
                    "charge_replacement on mem_cgroup_migrate(struct folio *)",
                ),
                ("charge_hugetlb", "not needed"),
                ("uncharge_folio", "uncharge_folio on uncharge_folio(struct folio *)"),
                ("place_anon", "place_anon on folio_add_new_anon_rmap(struct folio *)"),
                (
                    "place_shmem",
                    "place_shmem_charging on shmem_add_to_page_cache(struct folio *)",
                ),
                (
                    "place_file",
                    "place_file on __filemap_add_folio(struct address_space *)",
                ),
            ],
        );
    }
}

#[test]
fn what_6_8_charges_anew() {
    expect(
        UBUNTU_6_8,
        &[
            (
                "charge_hugetlb",
                "commit_hugetlb on mem_cgroup_commit_charge(struct folio *)",
            ),
            (
                "charge_replacement",
                "charge_replacement on mem_cgroup_replace_folio(struct folio *)",
            ),
            ("move_charge", "move_charge on mem_cgroup_migrate(struct folio *)"),
            ("place_shmem", "place_shmem on shmem_add_to_page_cache(struct folio *)"),
            (
                "place_hugetlb",
                "place_hugetlb on hugetlb_add_to_page_cache(struct folio *)",
            ),
        ],
    );
    // mem_cgroup_migrate hands a charge over there, which is none.
    let types = kernel(UBUNTU_6_8);
    let replacement = PROBES
        .iter()
        .find(|probe| probe.name == "charge_replacement")
        .expect("a probe");
    let fitting = replacement
        .candidates
        .iter()
        .filter(|candidate| candidate.check(&types).is_ok());
    assert_eq!(fitting.count(), 1);
}

#[test]
fn a_kernel_with_nothing_that_fits_is_refused_in_words() {
    assert_eq!(
        chosen(&kernel_without(UBUNTU_6_8, "uncharge_folio("), "uncharge_folio"),
        "refused: this kernel has no uncharge_folio, or this kernel has no uncharge_page"
    );
}

#[test]
fn the_size_of_a_page_is_found_where_each_kernel_has_it() {
    let pages = resolve_offsets(&kernel(SLE_5_14)).expect("resolved");
    assert_eq!(pages.folio_nr_pages, 64 + 24, "compound_nr of the second page");
    assert_eq!((pages.owner_has_no_flags, pages.folio_owner), (0, 56));
    let folios = resolve_offsets(&kernel(UBUNTU_6_8)).expect("resolved");
    assert_eq!(folios.folio_nr_pages, 96);
    assert_eq!(folios.kernel_pages_hold_memcg, 0);
}

#[test]
fn a_kernel_page_of_5_11_holds_a_memcg() {
    let declaration = "fn int __memcg_kmem_charge(struct mem_cgroup *, gfp_t, unsigned int)\n";
    let types = synthetic::kernel(&format!("{COMMON}{VANILLA_5_14}{declaration}"));
    let offsets = resolve_offsets(&types).expect("resolved");
    assert_eq!(offsets.kernel_pages_hold_memcg, 1);
}

#[test]
fn a_struct_that_lost_a_field_is_named() {
    let error = resolve_offsets(&kernel_without(SLE_6_4, "struct oom_control 64")).unwrap_err();
    assert!(error.to_string().contains("oom_chosen"), "{error}");
}

#[test]
fn every_program_in_the_table_is_in_the_object() {
    let object = super::tracer::program_names();
    for probe in PROBES {
        for candidate in probe.candidates {
            let name = candidate.program;
            let programs: &[String] = &match candidate.hook {
                Hook::Nothing(_) => vec![],
                Hook::Tracepoint(..) | Hook::RawTracepoint(_) => vec![name.to_owned()],
                Hook::Entry(..) => ["", "_kprobe"].map(|end| format!("{name}{end}")).to_vec(),
                Hook::Exit(..) => ["", "_kprobe", "_kretprobe"].map(|end| format!("{name}{end}")).to_vec(),
            };
            if matches!(candidate.hook, Hook::Entry(..) | Hook::Exit(..)) {
                let second = ["_again", "_always"].map(|end| object.contains(&format!("{name}{end}")));
                assert!(second[0] != second[1], "second program of {name}");
            }
            for program in programs {
                assert!(object.contains(program), "{program} of probe {}", probe.name);
            }
        }
    }
}

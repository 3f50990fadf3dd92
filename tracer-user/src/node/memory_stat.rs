//! A memcg's own figures: memory.stat by kind, events, pressure.

use std::collections::{BTreeMap, HashMap};

use tracer_common::Kind;

use super::bounded::{self, SMALL};
use super::cgroup::{CgroupVersion, Memcg};
use crate::recording::event::Sample;

/// memory.stat of v2 that is a kind as it stands (kernel: mm/memcontrol.c memory_stats, 5.10 to 6.18).
const V2_KINDS: [(&str, Kind); 10] = [
    ("anon", Kind::Anon),
    ("shmem", Kind::Shmem),
    ("slab", Kind::Slab),
    ("pagetables", Kind::Pagetable),
    ("sec_pagetables", Kind::SecondaryPagetable),
    ("kernel_stack", Kind::KernelStack),
    ("vmalloc", Kind::Vmalloc),
    ("percpu", Kind::Percpu),
    ("sock", Kind::Sock),
    // Only with the mount option memory_hugetlb_accounting (6.7+).
    ("hugetlb", Kind::Hugetlb),
];

impl Memcg {
    /// Everything the memcg says about itself, with `pod` 0 and no guest residency: the caller knows those. `None`
    /// when it is gone.
    #[must_use]
    pub fn sample(&self) -> Option<Sample> {
        let usage = self.usage()?;
        let stat = self.raw_stat();
        let (limit_hits, oom_kills) = self.events();
        Some(Sample {
            memcg: self.id,
            usage,
            limit: self.limit(),
            peak: self.peak(),
            reclaimable_file: reclaimable_file(self.version, &stat),
            stat: self.kinds(&stat),
            pressure_some_us: self.pressure_some_us(),
            limit_hits,
            oom_kills,
            ..Sample::default()
        })
    }

    /// memory.stat (with everything below) by kind. `file` is without shmem, `kmem` is the kernel memory that has no
    /// kind of its own.
    #[must_use]
    pub fn stat(&self) -> BTreeMap<Kind, u64> {
        self.kinds(&self.raw_stat())
    }

    fn raw_stat(&self) -> HashMap<String, u64> {
        keyed(&bounded::text(&self.dir.join("memory.stat"), SMALL).unwrap_or_default())
    }

    fn kinds(&self, stat: &HashMap<String, u64>) -> BTreeMap<Kind, u64> {
        match self.version {
            CgroupVersion::V1 => {
                let kmem = bounded::number(&self.dir.join("memory.kmem.usage_in_bytes"));
                v1_kinds(stat, kmem)
            }
            CgroupVersion::V2 => v2_kinds(stat),
        }
    }

    /// How often the limit was hit, and how many processes were OOM-killed.
    fn events(&self) -> (u64, u64) {
        let of = |file: &str| keyed(&bounded::text(&self.dir.join(file), SMALL).unwrap_or_default());
        let get = |values: &HashMap<String, u64>, key: &str| values.get(key).copied().unwrap_or(0);
        match self.version {
            CgroupVersion::V1 => (
                bounded::number(&self.dir.join("memory.failcnt")).unwrap_or(0),
                // Since 4.13.
                get(&of("memory.oom_control"), "oom_kill"),
            ),
            CgroupVersion::V2 => {
                let events = of("memory.events");
                (get(&events, "max"), get(&events, "oom_kill"))
            }
        }
    }

    /// Total time that some task of the memcg stalled for memory, microseconds. v1 has no such figure.
    fn pressure_some_us(&self) -> Option<u64> {
        let text = bounded::text(&self.dir.join("memory.pressure"), SMALL)?;
        let some = text.lines().find(|line| line.starts_with("some "))?;
        some.rsplit_once("total=")?.1.trim().parse().ok()
    }
}

/// `key value` lines.
fn keyed(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn v2_kinds(stat: &HashMap<String, u64>) -> BTreeMap<Kind, u64> {
    let mut kinds: BTreeMap<Kind, u64> = V2_KINDS
        .iter()
        .filter_map(|(key, kind)| Some((*kind, *stat.get(*key)?)))
        .collect();
    if let Some(file) = stat.get("file") {
        let shmem = kinds.get(&Kind::Shmem).copied().unwrap_or(0);
        kinds.insert(Kind::File, file.saturating_sub(shmem));
    }
    if let Some(kernel) = stat.get("kernel") {
        let shown: u64 = Kind::KERNEL_PARTS.iter().filter_map(|kind| kinds.get(kind)).sum();
        kinds.insert(Kind::Kmem, kernel.saturating_sub(shown));
    }
    kinds
}

/// v1: `total_rss` has transparent huge pages in it (`total_rss_huge` is a part), `total_cache` has shmem in it. TCP
/// buffers (memory.kmem.tcp) are a counter of their own, outside of usage, and so not shown.
fn v1_kinds(stat: &HashMap<String, u64>, kmem: Option<u64>) -> BTreeMap<Kind, u64> {
    let mut kinds = BTreeMap::new();
    let shmem = stat.get("total_shmem").copied().unwrap_or(0);
    if let Some(rss) = stat.get("total_rss") {
        kinds.insert(Kind::Anon, *rss);
    }
    if let Some(cache) = stat.get("total_cache") {
        kinds.insert(Kind::File, cache.saturating_sub(shmem));
        kinds.insert(Kind::Shmem, shmem);
    }
    if let Some(kmem) = kmem {
        kinds.insert(Kind::Kmem, kmem);
    }
    kinds
}

/// Page cache that reclaim could take.
fn reclaimable_file(version: CgroupVersion, stat: &HashMap<String, u64>) -> u64 {
    let keys = match version {
        CgroupVersion::V1 => ["total_inactive_file", "total_active_file"],
        CgroupVersion::V2 => ["inactive_file", "active_file"],
    };
    keys.iter().filter_map(|key| stat.get(*key)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;
    use crate::node::test_tree::Tree;

    const V2_STAT: &str = "anon 1000\nfile 900\nkernel 700\nkernel_stack 100\npagetables 150\nsec_pagetables 50\n\
        percpu 20\nsock 30\nvmalloc 10\nshmem 400\ninactive_file 300\nactive_file 200\nslab 250\nhugetlb 0\n";

    #[test]
    fn v2_by_kind_counts_nothing_twice() {
        let tree = Tree::v2();
        tree.memcg("/pod")
            .file("memory.current", "5000\n")
            .file("memory.max", "max\n")
            .file("memory.stat", V2_STAT)
            .file(
                "memory.events",
                "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
            )
            .file(
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
            );
        let memcg = Node::new(tree.root()).unwrap().memcg("/pod").unwrap();
        let sample = memcg.sample().unwrap();
        assert_eq!((sample.usage, sample.limit, sample.peak), (5000, None, None));
        assert_eq!((sample.limit_hits, sample.oom_kills), (7, 2));
        assert_eq!((sample.reclaimable_file, sample.pressure_some_us), (500, Some(1234)));
        assert_eq!(sample.stat[&Kind::File], 500);
        assert_eq!(sample.stat[&Kind::Kmem], 700 - 100 - 150 - 50 - 20 - 10 - 250);
        assert_eq!(sample.stat.values().sum::<u64>(), 1000 + 900 + 700 + 30);
    }

    #[test]
    fn v1_reads_the_hierarchical_figures() {
        let tree = Tree::v1();
        tree.memcg("/pod")
            .file("memory.usage_in_bytes", "5000\n")
            .file("memory.limit_in_bytes", "8192\n")
            .file("memory.max_usage_in_bytes", "6000\n")
            .file("memory.failcnt", "4\n")
            .file("memory.kmem.usage_in_bytes", "700\n")
            .file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
            .file(
                "memory.stat",
                "cache 1\nrss 1\nshmem 1\ntotal_cache 900\ntotal_rss 1000\ntotal_rss_huge 800\ntotal_shmem 400\n\
                 total_inactive_file 300\ntotal_active_file 200\n",
            );
        let memcg = Node::new(tree.root()).unwrap().memcg("/pod").unwrap();
        let sample = memcg.sample().unwrap();
        assert_eq!(
            (sample.usage, sample.limit, sample.peak),
            (5000, Some(8192), Some(6000))
        );
        assert_eq!((sample.limit_hits, sample.oom_kills), (4, 5));
        let expected = [
            (Kind::Anon, 1000),
            (Kind::File, 500),
            (Kind::Shmem, 400),
            (Kind::Kmem, 700),
        ];
        assert_eq!(sample.stat, expected.into_iter().collect());
    }

    #[test]
    fn a_memcg_that_vanished_has_no_sample() {
        let tree = Tree::v2();
        tree.memcg("/pod").file("memory.current", "1\n");
        let memcg = Node::new(tree.root()).unwrap().memcg("/pod").unwrap();
        std::fs::remove_dir_all(&memcg.dir).unwrap();
        assert_eq!(memcg.sample(), None);
        assert!(!memcg.exists());
    }
}

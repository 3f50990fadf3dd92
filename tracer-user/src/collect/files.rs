//! Which files a pod's page cache belongs to.

use std::cmp::Reverse;
use std::collections::HashMap;

use tracer_common::FileKey;

use super::targets::Targets;
use crate::node::Node;
use crate::probe::{Tracer, page_size};
use crate::recording::event::FileCache;

/// How many files are named for each memcg.
const TOP_FILES: usize = 20;

/// The files that brought the most page cache into each memcg, named as the pods' processes see them.
pub fn top_files(node: &Node, tracer: &Tracer, targets: &Targets) -> Vec<FileCache> {
    let mut by_memcg: HashMap<u64, Vec<(FileKey, u64)>> = HashMap::new();
    for (memcg, file, pages) in tracer.file_pages() {
        by_memcg
            .entry(memcg)
            .or_default()
            .push((file, pages.saturating_mul(page_size())));
    }
    for files in by_memcg.values_mut() {
        files.sort_by_key(|(file, bytes)| (Reverse(*bytes), file.inode));
        files.truncate(TOP_FILES);
    }
    let wanted: Vec<FileKey> = by_memcg.values().flatten().map(|(file, _)| *file).collect();
    let pids: Vec<u32> = targets.members().map(|(pid, ..)| pid).collect();
    let paths = node.open_paths(&pids, &wanted);
    let named = |memcg, (file, bytes): (FileKey, u64)| FileCache {
        memcg,
        // kernel: MAJOR() and MINOR(), include/linux/kdev_t.h
        device: format!("{}:{}", file.device >> 20, file.device & 0xf_ffff),
        inode: file.inode,
        path: paths.get(&file).cloned(),
        bytes,
    };
    let mut files: Vec<FileCache> = by_memcg
        .into_iter()
        .flat_map(|(memcg, files)| files.into_iter().map(move |file| (memcg, file)))
        .map(|(memcg, file)| named(memcg, file))
        .collect();
    files.sort_by_key(|file| (file.memcg, Reverse(file.bytes)));
    files
}

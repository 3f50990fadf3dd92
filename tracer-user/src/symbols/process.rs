//! Code of processes: which file an address lies in, and what it is called there.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::Place;
use super::image::Image;
use crate::node::Node;
use crate::node::code::path_of;
use crate::node::maps::Mapping;

/// Processes whose mappings are remembered.
const MAX_PROCESSES: usize = 512;
/// Files whose symbols are remembered.
const MAX_IMAGES: usize = 256;
/// Memory that their symbols may take.
const MAX_IMAGE_BYTES: u64 = 192 << 20;
/// Names that are remembered.
const MAX_NAMES: usize = 64 << 10;
/// A process's mappings are looked at again no sooner than this, when an address lies in none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A file, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

/// A process's executable mappings, and the files behind them as far as they were asked for.
struct Code {
    mappings: Vec<(Mapping, Option<Option<Identity>>)>,
    read: Instant,
}

struct Known {
    image: Image,
    used: u64,
}

/// Code of processes.
pub(super) struct Processes {
    node: Node,
    code: HashMap<u32, Code>,
    images: HashMap<Identity, Known>,
    names: HashMap<(Identity, u64), Option<String>>,
    turn: u64,
}

impl Processes {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            code: HashMap::new(),
            images: HashMap::new(),
            names: HashMap::new(),
            turn: 0,
        }
    }

    /// A process is gone, or started another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.code.remove(&pid);
    }

    /// Places of a stack, innermost first. It ends where an address is no code: functions that keep no frame pointer
    /// leave anything there.
    pub(super) fn places(&mut self, pid: u32, stack: &[u64]) -> Vec<Place> {
        let mut places = Vec::new();
        for (depth, address) in stack.iter().enumerate() {
            // The innermost is the instruction itself, the others are return addresses behind the call.
            let address = if depth == 0 { *address } else { address.wrapping_sub(1) };
            match self.place(pid, address) {
                Some(place) => places.push(place),
                None => break,
            }
        }
        places
    }

    fn place(&mut self, pid: u32, address: u64) -> Option<Place> {
        let index = self.mapping(pid, address)?;
        let (mapping, identity) = self.code.get(&pid)?.mappings.get(index)?.clone();
        let offset = address.wrapping_sub(mapping.start).wrapping_add(mapping.offset);
        let identity = match identity {
            Some(identity) => identity,
            None => {
                let found = self.open(pid, &mapping);
                if let Some((_, slot)) = self.code.get_mut(&pid).and_then(|code| code.mappings.get_mut(index)) {
                    *slot = Some(found);
                }
                found
            }
        };
        let symbol = identity.and_then(|identity| self.name(identity, offset));
        let build_id = identity.and_then(|identity| self.images.get(&identity)?.image.build_id.clone());
        Some(Place {
            offset: symbol.is_none().then_some(offset),
            symbol,
            module: module(&mapping),
            build_id,
        })
    }

    /// Which mapping an address lies in.
    fn mapping(&mut self, pid: u32, address: u64) -> Option<usize> {
        let find = |code: &Code| {
            code.mappings
                .iter()
                .position(|(mapping, _)| (mapping.start..mapping.end).contains(&address))
        };
        if let Some(code) = self.code.get(&pid) {
            let found = find(code);
            if found.is_some() || code.read.elapsed() < LOOK_AGAIN {
                return found;
            }
        }
        let mappings = self.node.code_mappings(pid)?;
        if self.code.len() >= MAX_PROCESSES {
            self.code.clear();
        }
        let code = Code {
            mappings: mappings.into_iter().map(|mapping| (mapping, None)).collect(),
            read: Instant::now(),
        };
        let found = find(&code);
        self.code.insert(pid, code);
        found
    }

    /// Opens a mapping's file, and reads its symbols unless they are known.
    fn open(&mut self, pid: u32, mapping: &Mapping) -> Option<Identity> {
        let file = self.node.open_mapped(pid, mapping)?;
        let metadata = file.metadata().ok()?;
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        self.turn += 1;
        if !self.images.contains_key(&identity) {
            let image = Image::read(&file);
            self.make_room(image.bytes);
            self.images.insert(identity, Known { image, used: self.turn });
        }
        Some(identity)
    }

    /// Forgets the symbols that were not asked for the longest. Names that were found in them stay.
    fn make_room(&mut self, bytes: u64) {
        loop {
            let held: u64 = self.images.values().map(|known| known.image.bytes).sum();
            if self.images.len() < MAX_IMAGES && held.saturating_add(bytes) <= MAX_IMAGE_BYTES {
                return;
            }
            let oldest = self.images.iter().min_by_key(|(_, known)| known.used);
            let Some(identity) = oldest.map(|(identity, _)| *identity) else {
                return;
            };
            self.images.remove(&identity);
            // They are read again when they are asked for again.
            for code in self.code.values_mut() {
                for (_, slot) in &mut code.mappings {
                    if *slot == Some(Some(identity)) {
                        *slot = None;
                    }
                }
            }
        }
    }

    fn name(&mut self, identity: Identity, offset: u64) -> Option<String> {
        if let Some(known) = self.names.get(&(identity, offset)) {
            return known.clone();
        }
        self.turn += 1;
        let known = self.images.get_mut(&identity)?;
        known.used = self.turn;
        let name = known.image.name(offset);
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        self.names.insert((identity, offset), name.clone());
        name
    }
}

/// What a mapping is called.
fn module(mapping: &Mapping) -> String {
    match path_of(mapping) {
        "" => "[anonymous]".to_owned(),
        path => super::kept(path),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[inline(never)]
    fn a_place_of_this_test() -> u64 {
        std::hint::black_box(41)
    }

    #[test]
    fn a_stack_of_our_own_has_names_up_to_what_is_no_code() {
        let mut processes = Processes::new(Node::new(Path::new("/")).unwrap());
        let own = std::process::id();
        let here = a_place_of_this_test as fn() -> u64 as usize as u64;
        let places = processes.places(own, &[here, here + 2, 0x10, here]);
        assert_eq!(places.len(), 2, "{places:?}");
        for place in &places {
            let symbol = place.symbol.as_deref().unwrap_or_default();
            assert!(symbol.ends_with("a_place_of_this_test"), "{place:?}");
            assert_eq!(place.module, std::env::current_exe().unwrap().to_str().unwrap());
            assert_eq!(place.offset, None);
        }
        assert_eq!(processes.images.len(), 1);
        assert_eq!(processes.places(0x3fff_ffff, &[here]), [], "no such process");
    }
}

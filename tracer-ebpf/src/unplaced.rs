//! Folios that wait long for their place, or never get one: read back from swap (perhaps ahead of need), or huge pages
//! that a collapse fills. When such a folio is given back, nothing on it tells any more what it was charged as; so it is
//! remembered from its charge to its place. Pages that are placed at once, which is nearly all, are not.

use tracer_common::{Kind, Region};

use crate::account::{Direction, account};
use crate::hooks::{Access, Probed, at_entry};
use crate::kernel::{Folio, Pointer};
use crate::live::{charged, placed};
use crate::maps::UNPLACED;
use crate::place::{file_of, file_region, mapped_region};
use crate::watch::OfFolio;

/// Remembers a folio that was charged as anonymous memory without a place.
#[inline(always)]
pub fn remember(folio: Folio) {
    // The least recent gives way where there is no room: it is then given back as what it looks like.
    let _ = UNPLACED.insert(&(folio.0 as u64), &0, 0);
}

/// Whether a folio was waiting for its place; it no longer is.
#[inline(always)]
pub fn forget(folio: Folio) -> bool {
    UNPLACED.remove(&(folio.0 as u64)).is_ok()
}

// kernel: void page_add_anon_rmap(struct page *, struct vm_area_struct *, unsigned long address, rmap_t) (5.19 to 6.7),
// before it do_page_add_anon_rmap(struct page *, ..., int flags) (5.3 to 5.17): where a page that was swapped in, among
// others, is mapped. From 6.11 on that is folio_add_new_anon_rmap.
at_entry!(place_swapped_in, place_swapped_in_again, place_swapped_in_kprobe, OfFolio(0) => placed_swapped_in(0, 1, 2));

#[inline(always)]
fn placed_swapped_in<A: Access>(owner: OfFolio, page: Pointer, vma: Pointer, address: u64) -> Option<()> {
    let folio = Folio(page);
    let memcg = owner.memcg()?;
    if forget(folio) {
        let region = mapped_region::<A>(memcg, vma, address)?;
        placed(folio, memcg, Kind::Anon, region, folio.bytes());
    }
    Some(())
}

/// A huge page that was charged for a collapse became one of a file.
#[inline(always)]
pub fn collapsed_into_file(folio: Folio) -> Option<()> {
    let memcg = folio.owner()?;
    if !forget(folio) {
        return None;
    }
    let kind = if folio.is_swapbacked() { Kind::Shmem } else { Kind::File };
    let region = file_region(&file_of::<Probed>(folio.mapping() as Pointer));
    account(memcg, Kind::Anon, Region::Unplaced, Direction::Uncharge, folio.bytes());
    charged(folio.0, memcg, kind, region, folio.bytes());
    Some(())
}

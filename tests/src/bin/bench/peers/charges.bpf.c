// SPDX-License-Identifier: GPL-2.0
//
// What a C programmer would write with libbpf to know which thread of a memory cgroup is charged for what: the same
// functions as headroom probes on Linux 6.12, the same figures (charged and given back, by memory cgroup, thread, kind and
// whether it is guest RAM), in one hash, which user space reads from time to time.

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef short __s16;
typedef signed char __s8;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_NOEXIST = 1,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define PAGE_SIZE 4096ULL

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node {
	__u64 id;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};
struct mem_cgroup {
	struct cgroup_subsys_state css;
};
struct obj_cgroup {
	struct mem_cgroup *memcg;
};
struct folio {
	unsigned long flags;
	void *mapping;
	unsigned long index;
	unsigned long memcg_data;
	unsigned int _folio_nr_pages;
};
struct page {
	unsigned long memcg_data;
};
struct task_struct {
	int tgid;
};
struct mm_struct {
	struct task_struct *owner;
};
struct vm_area_struct {
	struct mm_struct *vm_mm;
};
struct uncharge_gather;
#pragma clang attribute pop

enum kind { ANON, FILE_OR_SHMEM, KMEM, SLAB, SOCK };
enum region { UNPLACED, GUEST, OVERHEAD };

struct key {
	__u64 memcg;
	__u32 tid;
	__u16 kind;
	__u16 region;
};

struct totals {
	__u64 charged;
	__u64 uncharged;
};

struct guest {
	__u64 tgid;
	__u64 start;
	__u64 end;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, struct totals);
} totals SEC(".maps");

/* By cgroup id: the guest RAM of its QEMU. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct guest);
} watched SEC(".maps");

static __always_inline __u64 id_of(struct mem_cgroup *memcg)
{
	return BPF_CORE_READ(memcg, css.cgroup, kn, id);
}

/* kernel: folio_memcg(): bit 0 objects, bit 1 kernel memory, whose pointer is an obj_cgroup */
static __always_inline __u64 owner(unsigned long data)
{
	unsigned long pointer = data & ~3UL;

	if (!pointer || data & 1)
		return 0;
	if (data & 2)
		return id_of(BPF_CORE_READ((struct obj_cgroup *)pointer, memcg));
	return id_of((struct mem_cgroup *)pointer);
}

static __always_inline __u64 bytes_of(struct folio *folio)
{
	/* kernel: PG_head */
	if (!(folio->flags & (1 << 6)))
		return PAGE_SIZE;
	return PAGE_SIZE * folio->_folio_nr_pages;
}

static __always_inline void count(__u64 memcg, enum kind kind, enum region region, __s64 bytes)
{
	struct key key = {
		.memcg = memcg,
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.kind = kind,
		.region = region,
	};
	struct totals *found = bpf_map_lookup_elem(&totals, &key);

	if (!found) {
		struct totals zero = {};

		bpf_map_update_elem(&totals, &key, &zero, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&totals, &key);
		if (!found)
			return;
	}
	if (bytes >= 0)
		__sync_fetch_and_add(&found->charged, bytes);
	else
		__sync_fetch_and_add(&found->uncharged, -bytes);
}

SEC("fexit/__mem_cgroup_charge")
int BPF_PROG(charge, struct folio *folio, struct mm_struct *mm, unsigned int gfp, int ret)
{
	__u64 memcg;

	if (ret)
		return 0;
	memcg = owner(folio->memcg_data);
	if (!bpf_map_lookup_elem(&watched, &memcg))
		return 0;
	count(memcg, mm && !folio->mapping ? ANON : FILE_OR_SHMEM, UNPLACED, bytes_of(folio));
	return 0;
}

SEC("fentry/folio_add_new_anon_rmap")
int BPF_PROG(place, struct folio *folio, struct vm_area_struct *vma, unsigned long address)
{
	__u64 memcg = owner(folio->memcg_data);
	struct guest *guest = bpf_map_lookup_elem(&watched, &memcg);
	enum region region = OVERHEAD;

	if (!guest)
		return 0;
	if (vma->vm_mm->owner->tgid == guest->tgid && address >= guest->start && address < guest->end)
		region = GUEST;
	count(memcg, ANON, UNPLACED, -bytes_of(folio));
	count(memcg, ANON, region, bytes_of(folio));
	return 0;
}

SEC("fentry/uncharge_folio")
int BPF_PROG(uncharge, struct folio *folio, struct uncharge_gather *gather)
{
	unsigned long data = folio->memcg_data;
	__u64 memcg = owner(data);
	struct guest *guest = bpf_map_lookup_elem(&watched, &memcg);
	unsigned long address = folio->index << 12;
	/* The verifier takes what is loaded directly for a pointer, which has no bits. */
	bool anon = (unsigned long)BPF_CORE_READ(folio, mapping) & 1;

	if (!guest)
		return 0;
	if (data & 2)
		count(memcg, KMEM, OVERHEAD, -bytes_of(folio));
	else if (anon && address >= guest->start && address < guest->end)
		count(memcg, ANON, GUEST, -bytes_of(folio));
	else
		count(memcg, anon ? ANON : FILE_OR_SHMEM, OVERHEAD, -bytes_of(folio));
	return 0;
}

SEC("fexit/__memcg_kmem_charge_page")
int BPF_PROG(charge_kernel, struct page *page, unsigned int gfp, int order, int ret)
{
	__u64 memcg;

	if (ret)
		return 0;
	memcg = owner(page->memcg_data);
	if (bpf_map_lookup_elem(&watched, &memcg))
		count(memcg, KMEM, OVERHEAD, PAGE_SIZE << (order & 31));
	return 0;
}

SEC("fentry/__memcg_kmem_uncharge_page")
int BPF_PROG(uncharge_kernel, struct page *page, int order)
{
	unsigned long data = page->memcg_data;
	__u64 memcg = owner(data);

	if (data & 2 && bpf_map_lookup_elem(&watched, &memcg))
		count(memcg, KMEM, OVERHEAD, -(__s64)(PAGE_SIZE << (order & 31)));
	return 0;
}

SEC("fexit/obj_cgroup_charge")
int BPF_PROG(charge_objects, struct obj_cgroup *objcg, unsigned int gfp, unsigned long size, int ret)
{
	__u64 memcg;

	if (ret)
		return 0;
	memcg = objcg->memcg->css.cgroup->kn->id;
	if (bpf_map_lookup_elem(&watched, &memcg))
		count(memcg, SLAB, OVERHEAD, size);
	return 0;
}

SEC("fentry/refill_obj_stock")
int BPF_PROG(uncharge_objects, struct obj_cgroup *objcg, unsigned int bytes, bool allow_uncharge)
{
	__u64 memcg;

	if (!allow_uncharge)
		return 0;
	memcg = objcg->memcg->css.cgroup->kn->id;
	if (bpf_map_lookup_elem(&watched, &memcg))
		count(memcg, SLAB, OVERHEAD, -(__s64)bytes);
	return 0;
}

SEC("fexit/mem_cgroup_charge_skmem")
int BPF_PROG(charge_socket, struct mem_cgroup *memcg, unsigned int pages, unsigned int gfp, bool charged)
{
	__u64 id = memcg->css.cgroup->kn->id;

	if (charged && bpf_map_lookup_elem(&watched, &id))
		count(id, SOCK, OVERHEAD, pages * PAGE_SIZE);
	return 0;
}

SEC("fentry/mem_cgroup_uncharge_skmem")
int BPF_PROG(uncharge_socket, struct mem_cgroup *memcg, unsigned int pages)
{
	__u64 id = memcg->css.cgroup->kn->id;

	if (bpf_map_lookup_elem(&watched, &id))
		count(id, SOCK, OVERHEAD, -(__s64)(pages * PAGE_SIZE));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

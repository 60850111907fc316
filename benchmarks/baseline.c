/*
 * The baseline that the kernels are measured against: plain C, x86-64 with 4 levels and 4 KiB pages over one flat
 * buffer, written for this purpose with the same checks and the same results (a physical address and an info word).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef uint32_t u32;

#define P 1ull
#define RW 2ull
#define US 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define XD (1ull << 63)
#define ADDR 0x000ffffffffff000ull

enum { DISTANCE = 16, SLOTS = 1024 };

struct plan {
	u64 *mem, bytes, root, bad, need_table, need_leaf, range_info, none_code, lut[8];
};

static inline u64 fault(const struct plan *p, u64 level) { return p->none_code | level << 16; }

/* The upper three levels: the last-level table, or ~0 and the info word of the fault. */
static inline u64 upper(const struct plan *p, u64 va, u64 *acc, u64 *info)
{
	u64 e, at;

	at = p->root + ((va >> 39 & 511) << 3);
	if (__builtin_expect(at >= p->bytes, 0)) { *info = ~0ull; return ~0ull; }
	e = p->mem[at >> 3];
	if (__builtin_expect((e & (P | PS | p->bad)) != P, 0)) { *info = e & P ? ~0ull : fault(p, 4); return ~0ull; }
	*acc = e ^ (RW | US | A);
	at = (e & ADDR) + ((va >> 30 & 511) << 3);
	if (__builtin_expect(at >= p->bytes, 0)) { *info = ~0ull; return ~0ull; }
	e = p->mem[at >> 3];
	if (__builtin_expect((e & (P | PS | p->bad)) != P, 0)) { *info = e & P ? ~0ull : fault(p, 3); return ~0ull; }
	*acc |= e ^ (RW | US | A);
	at = (e & ADDR) + ((va >> 21 & 511) << 3);
	if (__builtin_expect(at >= p->bytes, 0)) { *info = ~0ull; return ~0ull; }
	e = p->mem[at >> 3];
	if (__builtin_expect((e & (P | PS | p->bad)) != P, 0)) { *info = e & P ? ~0ull : fault(p, 2); return ~0ull; }
	*acc |= e ^ (RW | US | A);
	return e & ADDR;
}

/* Set A in every entry used and D in the leaf. */
static void __attribute__((noinline)) update(const struct plan *p, u64 va)
{
	u64 table = p->root, need = p->need_leaf;
	int shift;

	for (shift = 39; shift > 12; shift -= 9) {
		u64 *slot = &p->mem[table >> 3 | (va >> shift & 511)];
		if (~*slot & p->need_table)
			__atomic_fetch_or(slot, A, __ATOMIC_RELAXED);
		table = *slot & ADDR;
	}
	if (~p->mem[table >> 3 | (va >> 12 & 511)] & need)
		__atomic_fetch_or(&p->mem[table >> 3 | (va >> 12 & 511)], need, __ATOMIC_RELAXED);
}

static inline void finish(const struct plan *p, u64 va, u64 e, u64 acc, u64 *pa, u64 *info)
{
	u64 all = acc | (e ^ (RW | US | A | D)), word = p->lut[(all >> 1 & 3) | all >> 63 << 2];

	if (__builtin_expect((e & (P | p->bad)) != P || !word, 0)) {
		*pa = 0;
		*info = e & P ? ~0ull : fault(p, 1);
		return;
	}
	if (__builtin_expect(((e ^ (A | D)) & p->need_leaf) | (acc & p->need_table), 0))
		update(p, va);
	*pa = (e & ADDR) | (va & 4095);
	*info = word;
}

static inline int outside(u64 va) { return (va + (1ull << 47)) >> 48 != 0; }

static inline void walk(const struct plan *p, u64 va, u64 table, u64 acc, u64 *pa, u64 *info)
{
	u64 at = table + ((va >> 12 & 511) << 3);

	if (__builtin_expect(at >= p->bytes, 0)) {
		*pa = 0;
		*info = ~0ull;
	} else {
		finish(p, va, p->mem[at >> 3], acc, pa, info);
	}
}

void walk_scalar(const struct plan *restrict p, const u64 *restrict va, u64 n, u64 *restrict pa, u64 *restrict info)
{
	for (u64 k = 0; k < n; k++) {
		u64 acc, table;

		pa[k] = 0;
		if (outside(va[k])) { info[k] = p->range_info; continue; }
		table = upper(p, va[k], &acc, &info[k]);
		if (table != ~0ull)
			walk(p, va[k], table, acc, &pa[k], &info[k]);
	}
}

void walk_pipelined(const struct plan *restrict p, const u64 *restrict va, u64 n, u64 *restrict pa, u64 *restrict info)
{
	u64 tables[DISTANCE], accs[DISTANCE];

	memset(tables, 0xff, sizeof(tables));
	for (u64 k = 0; k < n + DISTANCE; k++) {
		u64 slot = k % DISTANCE, table = ~0ull, acc = 0;

		if (tables[slot] != ~0ull)
			walk(p, va[k - DISTANCE], tables[slot], accs[slot], &pa[k - DISTANCE], &info[k - DISTANCE]);
		if (k < n) {
			pa[k] = 0;
			if (outside(va[k]))
				info[k] = p->range_info;
			else
				table = upper(p, va[k], &acc, &info[k]);
			if (table < p->bytes)
				__builtin_prefetch(&p->mem[(table >> 3) + (va[k] >> 12 & 511)]);
		}
		tables[slot] = table;
		accs[slot] = acc;
	}
}

void walk_cached(const struct plan *restrict p, const u64 *restrict va, u64 n, u64 *restrict pa, u64 *restrict info)
{
	static __thread u64 keys[SLOTS], tables[SLOTS], accs[SLOTS];

	memset(keys, 0xff, sizeof(keys));
	for (u64 k = 0; k < n; k++) {
		u64 key = va[k] >> 21, slot = key % SLOTS, acc, table;

		pa[k] = 0;
		if (outside(va[k])) { info[k] = p->range_info; continue; }
		if (keys[slot] != key) {
			table = upper(p, va[k], &acc, &info[k]);
			if (table == ~0ull)
				continue;
			keys[slot] = key;
			tables[slot] = table;
			accs[slot] = acc;
		}
		walk(p, va[k], tables[slot], accs[slot], &pa[k], &info[k]);
		accs[slot] &= ~p->need_table;
	}
}

void walk_ordered(const struct plan *restrict p, const u64 *restrict va, u64 n, u64 *restrict pa, u64 *restrict info)
{
	u64 last = ~0ull, table = 0, acc = 0;

	for (u64 k = 0; k < n; k++) {
		pa[k] = 0;
		if (outside(va[k])) { info[k] = p->range_info; continue; }
		if (va[k] >> 21 != last) {
			table = upper(p, va[k], &acc, &info[k]);
			last = table == ~0ull ? ~0ull : va[k] >> 21;
			if (table == ~0ull)
				continue;
		}
		walk(p, va[k], table, acc, &pa[k], &info[k]);
		acc &= ~p->need_table;
	}
}

/* Whole spaces: every leaf of scattered last-level tables, which a walk over the upper levels finds in order. */

struct tables { const u64 *mem; const u64 *va, *pa; u64 count; };

static u64 next_tables(const u64 *mem, u64 table, int shift, u64 va, u64 *out_va, u64 *out_pa, u64 n)
{
	for (u64 i = 0; i < 512; i++) {
		u64 e = mem[(table >> 3) + i], below = va | i << shift;

		if (shift == 39 && i > 255)
			below |= 0xffffull << 48;
		if ((e & (P | PS)) != P)
			continue;
		if (shift == 21) {
			out_va[n] = below;
			out_pa[n++] = e & ADDR;
		} else {
			n = next_tables(mem, e & ADDR, shift - 9, below, out_va, out_pa, n);
		}
	}
	return n;
}

u64 leaves(const u64 *mem, u64 root, u64 *table_va, u64 *table_pa, u64 *out_va, u64 *out_entry)
{
	u64 tables = next_tables(mem, root, 39, 0, table_va, table_pa, 0), n = 0;

	for (u64 k = 0; k < tables; k++)
		for (u64 i = 0; i < 512; i++) {
			u64 e = mem[(table_pa[k] >> 3) + i];

			out_va[n] = table_va[k] + (i << 12);
			out_entry[n] = e;
			n += e & P;
		}
	return n;
}

struct range { u64 va, pa, size, flags; };

u64 ranges(const u64 *mem, u64 root, u64 *table_va, u64 *table_pa, struct range *out)
{
	u64 tables = next_tables(mem, root, 39, 0, table_va, table_pa, 0), n = 0;
	struct range now = { 0, 0, 0, 0 };

	for (u64 k = 0; k < tables; k++)
		for (u64 i = 0; i < 512; i++) {
			u64 e = mem[(table_pa[k] >> 3) + i], va = table_va[k] + (i << 12), pa = e & ADDR;
			u64 flags = e & ~ADDR & ~(A | D);

			if (!(e & P))
				continue;
			if (now.size && va == now.va + now.size && pa == now.pa + now.size && flags == now.flags) {
				now.size += 4096;
			} else {
				if (now.size)
					out[n++] = now;
				now = (struct range){ va, pa, 4096, flags };
			}
		}
	if (now.size)
		out[n++] = now;
	return n;
}

/* The reverse map as a counting sort: count, sum, fill in random order. */
u64 reverse(const u64 *mem, u64 root, u64 *table_va, u64 *table_pa, u32 *starts, u64 frames, u64 *out)
{
	u64 tables = next_tables(mem, root, 39, 0, table_va, table_pa, 0), total = 0;

	memset(starts, 0, (frames + 1) * sizeof(*starts));
	for (u64 k = 0; k < tables; k++)
		for (u64 i = 0; i < 512; i++) {
			u64 e = mem[(table_pa[k] >> 3) + i], frame = (e & ADDR) >> 12;

			if (e & P && frame < frames)
				starts[frame]++;
		}
	for (u64 f = 0; f <= frames; f++) {
		u32 count = f < frames ? starts[f] : 0;

		starts[f] = total;
		total += count;
	}
	for (u64 k = 0; k < tables; k++)
		for (u64 i = 0; i < 512; i++) {
			u64 e = mem[(table_pa[k] >> 3) + i], frame = (e & ADDR) >> 12;

			if (e & P && frame < frames)
				out[starts[frame]++] = (table_va[k] + (i << 12)) >> 12;
		}
	for (u64 f = frames; f > 0; f--)
		starts[f] = starts[f - 1];
	starts[0] = 0;
	return total;
}

/* fork of small anonymous pages: both sides read-only, one mapping and one reference more, no longer exclusive. */

struct record { u32 meta, refs, mapcount, rest[9], exclusive, pad[3]; };

u64 fork_small(u64 *src, u64 *dst, u64 n, u64 first_pfn, u64 frames, struct record *records, u64 clear)
{
	for (u64 k = 0; k < n; k++) {
		u64 e = src[k], frame = ((e & ADDR) >> 12) - first_pfn;
		struct record *r = &records[frame];

		if (k + DISTANCE < n)
			__builtin_prefetch(&records[((src[k + DISTANCE] & ADDR) >> 12) - first_pfn]);
		if (!e) {
			dst[k] = 0;
			continue;
		}
		if (!(e & P) || frame >= frames || r->meta & 0x800000ff || r->mapcount > 0x7ffffffd)
			return k;
		src[k] = dst[k] = e & ~clear;
		r->mapcount++;
		r->refs++;
		if (r->meta & 0x100)
			r->exclusive = 0;
	}
	return n;
}

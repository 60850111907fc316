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

void walk_scalar(const struct plan *p, const u64 *va, u64 n, u64 *pa, u64 *info)
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

void walk_pipelined(const struct plan *p, const u64 *va, u64 n, u64 *pa, u64 *info)
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

void walk_cached(const struct plan *p, const u64 *va, u64 n, u64 *pa, u64 *info)
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

void walk_ordered(const struct plan *p, const u64 *va, u64 n, u64 *pa, u64 *info)
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

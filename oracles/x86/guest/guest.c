/* Batch guest: runs the cases that lie in memory (QEMU) or on the disk (Bochs), one access each, and tells what it saw. */
#include "map.h"
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { LOAD, STORE, FETCH, RMW, DESCRIPTOR };
enum { WORDS = 6 };
#define CR4_TESTED 0x1f00000UL /* SMEP SMAP PKE CET PKS */
#define CR4_PKE (1UL << 22)
#define CR4_PKS (1UL << 24)
#define CR0_WP (1UL << 16)
#define EFER_NXE (1UL << 11)

struct control { /* filled by the host, but for `ready` and `done` */
    volatile u32 command, ready, done, count, la57, pad;
    u64 cases, results;
    u64 pad2[59];
};
struct test {
    u64 va, cr3;
    u32 wp, cr4, nxe, pkru, pkrs, rflags;
    u8 kind, cpl, words, pad[5];
    u64 pa[WORDS], value[WORDS];
};
struct result {
    u32 vector, error;
    u64 cr2, pa, after[WORDS];
};

extern struct { u64 vector, error, cr2, rax; } seen;
extern void access(u64 kind, u64 cpl, u64 va, u64 rflags);
extern u64 gdt[];
extern u8 gates[], entry_stack_end[];
static u64 idt[2 * 34] __attribute__((aligned(16)));
static struct { u32 reserved; u64 rsp0; u8 rest[92]; } __attribute__((packed, aligned(16))) tss;

#define READER(name) static u64 read_##name(void) { u64 v; __asm__ volatile("mov %%" #name ", %0" : "=r"(v)); return v; }
#define WRITER(name) static void write_##name(u64 v) { __asm__ volatile("mov %0, %%" #name :: "r"(v) : "memory"); }
READER(cr0) WRITER(cr0) WRITER(cr3) READER(cr4) WRITER(cr4)

static u64 read_msr(u32 number)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
    return low | (u64)high << 32;
}

static void write_msr(u32 number, u64 v) { __asm__ volatile("wrmsr" :: "c"(number), "a"((u32)v), "d"((u32)(v >> 32))); }
static void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" :: "a"(v), "d"(port)); }
static u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "d"(port)); return v; }

/* Sectors from the first ATA disk by programmed IO: the one way into Bochs 2.7 for megabytes. */
static void read_disk(u32 lba, u32 sectors, u8 *to)
{
    while (sectors--) {
        while (in8(0x1f7) & 0x80)
            ;
        out8(0x1f6, 0xe0 | (lba >> 24 & 15));
        out8(0x1f2, 1);
        out8(0x1f3, lba);
        out8(0x1f4, lba >> 8);
        out8(0x1f5, lba >> 16);
        out8(0x1f7, 0x20);
        while ((in8(0x1f7) & 0x88) != 8)
            ;
        u64 n = 256;
        __asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"((u16)0x1f0) : "memory");
        lba++;
    }
}

static void tell(const void *from, u64 n)
{
    for (const u8 *p = from; n--; p++)
        out8(0xe9, *p);
}

static void set_up_descriptors(void)
{
    static struct { u16 limit; u64 base; } __attribute__((packed)) table;
    for (int v = 0; v < 34; v++) {
        u64 at = (u64)gates + 16 * v;
        idt[2 * v] = (at & 0xffff) | 8UL << 16 | 0xee00UL << 32 | (at >> 16 & 0xffff) << 48;
        idt[2 * v + 1] = at >> 32;
    }
    table.limit = sizeof idt - 1;
    table.base = (u64)idt;
    __asm__ volatile("lidt %0" :: "m"(table));
    tss.rsp0 = (u64)entry_stack_end;
    u64 base = (u64)&tss;
    gdt[5] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89UL << 40 | (base >> 24 & 0xff) << 56;
    gdt[6] = base >> 32;
    __asm__ volatile("ltr %w0" :: "r"(0x28));
}

static void load_ldt(u64 base)
{
    gdt[7] = 0xfff | (base & 0xffffff) << 16 | 0x82UL << 40 | (base >> 24 & 0xff) << 56;
    gdt[8] = base >> 32;
    __asm__ volatile("lldt %w0" :: "r"(0x38));
}

static u64 cell(u64 pa) { return CELL_FIRST | pa >> 3 << 8 | 0x9020cdUL << 40; }

/* The physical address that a cell's content tells; all ones where it is no cell, or not marked as it should be. */
static u64 address_told(u64 content, u8 first)
{
    u64 pa = (content >> 8 & 0xffffffff) << 3;
    u64 expected = (cell(pa) & ~0xffUL) | first;
    return content == expected ? pa : ~0UL;
}

/* What lies at the address now, read by the supervisor with nothing in the way. */
static u64 read_freely(u64 va, u64 cr4)
{
    write_cr4(cr4 & ~CR4_TESTED);
    u64 content = *(volatile u64 *)va;
    write_cr4(cr4);
    return content;
}

static u64 where(const struct test *t, u64 cr4)
{
    if (t->kind == FETCH)
        return (seen.rax & 0xffffffff) << 3;
    if (t->kind == LOAD)
        return address_told(seen.rax, CELL_FIRST);
    u64 pa = address_told(read_freely(t->va, cr4), t->kind == DESCRIPTOR ? CELL_FIRST : MARK);
    if (pa >= CELLS && pa < CELLS_END)
        *(volatile u64 *)pa = cell(pa);
    return pa;
}

static void set_up_case(const struct test *t, u64 cr0, u64 cr4, u64 efer)
{
    for (int i = 0; i < t->words; i++)
        *(volatile u64 *)t->pa[i] = t->value[i];
    write_cr0((cr0 & ~CR0_WP) | t->wp);
    write_cr4((cr4 & ~CR4_TESTED) | t->cr4);
    write_msr(0xc0000080, (efer & ~EFER_NXE) | t->nxe);
    if (t->cr4 & CR4_PKE)
        __asm__ volatile("wrpkru" :: "a"(t->pkru), "c"(0), "d"(0));
    if (t->cr4 & CR4_PKS)
        write_msr(0x6e1, t->pkrs);
    if (t->kind == DESCRIPTOR)
        load_ldt(t->va);
    write_cr3(t->cr3);
}

static void run_case(const struct test *t, struct result *r, u64 cr0, u64 cr4, u64 efer)
{
    set_up_case(t, cr0, cr4, efer);
    access(t->kind, t->cpl, t->va, t->rflags);
    r->vector = seen.vector;
    r->error = seen.error;
    r->cr2 = seen.vector == 14 ? seen.cr2 : 0;
    for (int i = 0; i < t->words; i++)
        r->after[i] = *(volatile u64 *)t->pa[i];
    /* The cell is no segment: loading its descriptor ends in #GP(selector) once it was read. */
    if (t->kind == DESCRIPTOR && seen.vector == 13 && seen.error == 4)
        r->vector = 0x21;
    r->pa = r->vector >= 0x20 ? where(t, (cr4 & ~CR4_TESTED) | t->cr4) : 0;
    for (int i = 0; i < t->words; i++)
        *(volatile u64 *)t->pa[i] = 0;
}

void guest_main(int by_disk)
{
    struct control *c = (struct control *)CONTROL;
    set_up_descriptors();
    if (by_disk) {
        read_disk(0, 1, (u8 *)c);
        u32 bytes = c->count * sizeof(struct test);
        read_disk(1, (bytes + 511) / 512, (u8 *)c->cases);
    }
    for (u64 pa = CELLS; pa < CELLS_END; pa += 8)
        *(u64 *)pa = cell(pa);
    u64 cr0 = read_cr0(), cr4 = read_cr4(), efer = read_msr(0xc0000080);
    c->ready = 1;
    for (;;) {
        while (!c->command)
            __asm__ volatile("pause");
        struct test *tests = (struct test *)c->cases;
        struct result *results = (struct result *)c->results;
        for (u32 i = 0; i < c->count; i++)
            run_case(tests + i, results + i, cr0, cr4, efer);
        c->command = 0;
        if (by_disk) {
            tell("PTWALK>>", 8);
            tell(results, c->count * sizeof(struct result));
            for (const char *p = "Shutdown"; *p; p++)
                out8(0x8900, *p);
            for (;;)
                __asm__ volatile("cli; hlt");
        }
    }
}

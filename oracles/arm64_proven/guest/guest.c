/* Batch guest at EL2: writes each case's words, loads the EL1&0 registers, makes one access, tells what it saw.
   Addresses and structures are those of oracles/arm64/protocol.py. */
typedef unsigned int u32;
typedef unsigned long u64;

#define CONTROL 0x41000000UL
#define HARNESS 0x40000000UL /* two tables, then the page of stubs: 2 MiB seen by EL1 and EL0 */
#define STUB_PAGE (HARNESS + 0x4000)
#define CELLS 0x70000000UL
#define CELLS_END 0x71000000UL
enum { WORDS = 44, AT_FORMS = 10, FETCH = 6 };

struct control { volatile u64 command, ready, count, tests, results; };
struct test {
    u64 form, va, el, pan, sctlr, tcr, ttbr0, ttbr1, mair, hcr, vtcr, vttbr, harness_va, value, probe, words;
    u64 pa[WORDS], word[WORDS];
};
struct result { u64 par, esr2, far2, hpfar, esr1, far1, loaded, own, probe, after[WORDS]; };

extern volatile u64 own_exception, loaded;
extern char stubs[], stubs_end[];
extern u64 run_below(u64 elr, u64 spsr, u64 x0, u64 x1);

#define MSR(name, v) __asm__ volatile("msr " #name ", %0" :: "r"((u64)(v)) : "memory")
#define MRS(name) ({ u64 v_; __asm__ volatile("mrs %0, " #name : "=r"(v_) :: "memory"); v_; })
#define AT(form, va) __asm__ volatile("at " #form ", %0\n isb" :: "r"(va) : "memory")

static u64 cell(u64 pa)
{
    u64 n = pa >> 3;
    return 0xd4000001UL | ((n ^ n >> 16) & 0xffff) << 5 | n << 32; /* svc #(folded number); number */
}

static void set_up_harness(void)
{
    u64 *to = (u64 *)STUB_PAGE, *from = (u64 *)stubs;
    ((volatile u64 *)HARNESS)[0] = (HARNESS + 0x1000) | 3;
    /* 2-MiB block: AF, read-only for both, AttrIndx 7 */
    ((volatile u64 *)HARNESS)[512] = HARNESS | 1UL << 10 | 3UL << 6 | 7UL << 2 | 1;
    while (from < (u64 *)stubs_end)
        *to++ = *from++;
    for (u64 pa = CELLS; pa < CELLS_END; pa += 8)
        *(volatile u64 *)pa = cell(pa);
    __asm__ volatile("ic iallu\n dsb sy\n isb" ::: "memory");
}

static void load_registers(const struct test *t)
{
    MSR(hcr_el2, t->hcr);
    MSR(sctlr_el1, t->sctlr);
    MSR(tcr_el1, t->tcr);
    MSR(ttbr0_el1, t->ttbr0);
    MSR(ttbr1_el1, t->ttbr1);
    MSR(mair_el1, t->mair);
    MSR(vtcr_el2, t->vtcr);
    MSR(vttbr_el2, t->vttbr);
    MSR(esr_el1, 0);
    MSR(far_el1, 0);
    MSR(esr_el2, 0);
    MSR(far_el2, 0);
    MSR(hpfar_el2, 0);
    MSR(par_el1, 0);
    MSR(vbar_el1, t->harness_va + 0x4000 + 0x800);
    if (t->pan)
        __asm__ volatile("msr pan, #1");
    else
        __asm__ volatile("msr pan, #0");
    __asm__ volatile("tlbi alle1\n dsb sy\n isb" ::: "memory");
}

static void translate(u64 form, u64 va)
{
    switch (form) {
    case 0: AT(s1e1r, va); break;
    case 1: AT(s1e1w, va); break;
    case 2: AT(s1e0r, va); break;
    case 3: AT(s1e0w, va); break;
    case 4: AT(s1e1rp, va); break;
    case 5: AT(s1e1wp, va); break;
    case 6: AT(s12e1r, va); break;
    case 7: AT(s12e1w, va); break;
    case 8: AT(s12e0r, va); break;
    case 9: AT(s12e0w, va); break;
    }
}

static void run_case(const struct test *t, struct result *r)
{
    for (u64 i = 0; i < t->words; i++)
        *(volatile u64 *)t->pa[i] = t->word[i];
    load_registers(t);
    own_exception = loaded = 0;
    r->esr2 = 0;
    if (t->form < AT_FORMS) {
        translate(t->form, t->va);
    } else {
        u64 stub = t->form - AT_FORMS;
        u64 spsr = (t->el ? 0x3c5 : 0x3c0) | t->pan << 22;
        r->esr2 = run_below(stub == FETCH ? t->va : t->harness_va + 0x4000 + 16 * stub, spsr, t->va, t->value);
    }
    r->par = MRS(par_el1);
    r->far2 = MRS(far_el2);
    r->hpfar = MRS(hpfar_el2);
    r->esr1 = MRS(esr_el1);
    r->far1 = MRS(far_el1);
    r->loaded = loaded;
    r->own = own_exception;
    for (u64 i = 0; i < t->words; i++)
        r->after[i] = *(volatile u64 *)t->pa[i];
    r->probe = 0;
    if (t->probe >= CELLS && t->probe < CELLS_END) {
        r->probe = *(volatile u64 *)t->probe;
        *(volatile u64 *)t->probe = cell(t->probe);
    }
    for (u64 i = 0; i < t->words; i++)
        *(volatile u64 *)t->pa[i] = 0;
}

void guest_main(void)
{
    struct control *c = (struct control *)CONTROL;
    set_up_harness();
    c->ready = 1;
    for (;;) {
        while (!c->command)
            __asm__ volatile("yield");
        for (u64 i = 0; i < c->count; i++)
            run_case((struct test *)c->tests + i, (struct result *)c->results + i);
        c->command = 0;
    }
}

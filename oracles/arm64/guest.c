/* A bare-metal EL2 guest: takes cases from memory, lets AT instructions or real accesses loose on the EL1&0 regime,
 * writes PAR_EL1, ESR and FAR beside them, and saves all of it with the tables by semihosting. */
typedef unsigned long u64;
#define HDR ((volatile u64 *)0x40200000UL)
#define CASES 0x40201000UL
#define STUB_PA 0x40100000UL

struct record { /* 256 bytes */
    u64 op, va, sctlr, tcr, ttbr0, ttbr1, mair, hcr;
    u64 vtcr, vttbr, pan, stub_va, unused0, unused1, x1, unused2;
    u64 par, esr1, far1, esr2, far2, hpfar, status, elr1;
    u64 rx1, selftrap, reserved[6];
};
extern char stub_begin[], stub_end[];
extern volatile u64 self_trap[2], lower_x[2];
u64 run_el1(u64, u64, u64, u64);

#define MSR(reg, v) __asm__ volatile("msr " #reg ", %0" ::"r"((u64)(v)) : "memory")
#define MRS(reg) ({ u64 _v; __asm__ volatile("mrs %0, " #reg : "=r"(_v)::"memory"); _v; })
#define AT(op, v) __asm__ volatile("at " #op ", %0\n isb" ::"r"((u64)(v)) : "memory")
#define ATP(n, v) __asm__ volatile("sys #0, c7, c9, #" #n ", %0\n isb" ::"r"((u64)(v)) : "memory")

static u64 semihost(u64 op, void *a) {
    register u64 x0 __asm__("x0") = op;
    register void *x1 __asm__("x1") = a;
    __asm__ volatile("hlt #0xf000" : "+r"(x0) : "r"(x1) : "memory");
    return x0;
}

/* op 0x100+k: stub operation k at EL1, 0x200+k at EL0, 0x300 fetch at EL1, 0x400 fetch at EL0 */
static void real_access(volatile struct record *c) {
    u64 k = c->op & 0xff, mode = c->op >> 8, spsr = (mode & 1) ? 0x3c5 : 0x3c0;
    if (c->pan) spsr |= 1UL << 22;
    MSR(vbar_el1, c->stub_va + 0x800);
    __asm__ volatile("isb");
    u64 esr2 = run_el1(mode >= 3 ? c->va : c->stub_va + 16 * k, spsr, c->va, c->x1);
    c->esr1 = MRS(esr_el1), c->far1 = MRS(far_el1), c->elr1 = MRS(elr_el1);
    c->esr2 = esr2, c->far2 = MRS(far_el2), c->hpfar = MRS(hpfar_el2), c->rx1 = lower_x[1];
}

static void one(volatile struct record *c) {
    MSR(hcr_el2, c->hcr | (1UL << 31));
    MSR(tcr_el1, c->tcr); MSR(ttbr0_el1, c->ttbr0); MSR(ttbr1_el1, c->ttbr1); MSR(mair_el1, c->mair);
    MSR(vtcr_el2, c->vtcr); MSR(vttbr_el2, c->vttbr); MSR(sctlr_el1, c->sctlr);
    MSR(esr_el1, 0); MSR(far_el1, 0); MSR(far_el2, 0); MSR(hpfar_el2, 0); MSR(par_el1, 0);
    if (c->pan) __asm__ volatile("msr S0_0_C4_C1_4, xzr"); else __asm__ volatile("msr S0_0_C4_C0_4, xzr");
    __asm__ volatile("tlbi alle1\n dsb sy\n isb" ::: "memory");
    self_trap[0] = 0, c->status = 0;
    u64 v = c->va;
    switch (c->op) {
    case 0: AT(S1E1R, v); break;
    case 1: AT(S1E1W, v); break;
    case 2: AT(S1E0R, v); break;
    case 3: AT(S1E0W, v); break;
    case 4: ATP(0, v); break;
    case 5: ATP(1, v); break;
    case 6: AT(S12E1R, v); break;
    case 7: AT(S12E1W, v); break;
    case 8: AT(S12E0R, v); break;
    case 9: AT(S12E0W, v); break;
    default: real_access(c);
    }
    c->par = MRS(par_el1), c->selftrap = self_trap[0], c->status = 1;
}

void main(void) {
    u64 n = HDR[1], *d = (u64 *)STUB_PA, *s = (u64 *)stub_begin;
    for (u64 i = 0; i < (u64)(stub_end - stub_begin) / 8; i++) d[i] = s[i];
    __asm__ volatile("ic iallu\n dsb sy\n isb");
    MSR(cnthctl_el2, 3); MSR(cpacr_el1, 3 << 20);
    for (u64 i = 0; i < n; i++) {
        one((volatile struct record *)(CASES + i * sizeof(struct record)));
        HDR[2] = i + 1;
    }
    u64 name[3] = {(u64)"out.bin", 5, 7}, handle = semihost(1, name);
    u64 records[3] = {handle, 0x40200000UL, HDR[5]}, tables[3] = {handle, HDR[6], HDR[7]};
    u64 done[1] = {handle}, end[2] = {0x20026, 0};
    semihost(5, records), semihost(5, tables), semihost(2, done), semihost(0x18, end);
}

"""Control registers, model-specific registers and flags that steer x86 translation (Intel SDM volume 3A 2.5, 5.6)."""

from __future__ import annotations

from ..layout import Layout, address, bit, bits, ignored, merge, res0

CR0 = Layout(
    "CR0", bit("PE"), bit("MP"), bit("EM"), bit("TS"), bit("ET"), bit("NE"), res0(10), bit("WP"), res0(), bit("AM"),
    res0(10), bit("NW"), bit("CD"), bit("PG"), res0(32), title="control register 0", source="Intel SDM volume 3A 2.5",
)  # fmt: skip
CR3 = Layout(
    "CR3", bits("PCID", 12), address("BASE", 40), res0(9), bit("LAM_U57"), bit("LAM_U48"), bit("NOFLUSH"),
    title="root of the paging structures; PCID[4:3] are PCD and PWT where CR4.PCIDE=0",
    source="Intel SDM volume 3A 2.5, table 5-12",
)  # fmt: skip
CR4 = Layout(
    "CR4", bit("VME"), bit("PVI"), bit("TSD"), bit("DE"), bit("PSE"), bit("PAE"), bit("MCE"), bit("PGE"), bit("PCE"),
    bit("OSFXSR"), bit("OSXMMEXCPT"), bit("UMIP"), bit("LA57"), bit("VMXE"), bit("SMXE"), res0(), bit("FSGSBASE"),
    bit("PCIDE"), bit("OSXSAVE"), bit("KL"), bit("SMEP"), bit("SMAP"), bit("PKE"), bit("CET"), bit("PKS"), bit("UINTR"),
    res0(), bit("LASS"), bit("LAM_SUP"), res0(3), bit("FRED"), res0(31), title="control register 4",
    source="Intel SDM volume 3A 2.5",
)  # fmt: skip
EFER = Layout(
    "EFER", bit("SCE"), ignored(7), bit("LME"), res0(), bit("LMA"), bit("NXE"), bit("SVME"), bit("LMSLE"),
    bit("FFXSR"), bit("TCE"), res0(48), title="extended feature enables, MSR C0000080H",
    source="Intel SDM volume 4 table 2-2; AMD APM volume 2 3.1.7",
)  # fmt: skip
RFLAGS = Layout(
    "RFLAGS", bit("CF"), res0(), bit("PF"), res0(), bit("AF"), res0(), bit("ZF"), bit("SF"), bit("TF"), bit("IF"),
    bit("DF"), bit("OF"), bits("IOPL", 2), bit("NT"), res0(), bit("RF"), bit("VM"), bit("AC"), bit("VIF"), bit("VIP"),
    bit("ID"), res0(42), title="flags; AC lifts SMAP for explicit supervisor accesses",
    source="Intel SDM volume 1 3.4.3",
)  # fmt: skip


def _keys(name: str, width: int, title: str, source: str) -> Layout:
    fields = [bit(f"{right}{key}") for key in range(16) for right in ("AD", "WD")]
    return Layout(name, *fields, *([res0(width - 32)] if width > 32 else []), title=title, source=source)


PKRU = _keys("PKRU", 32, "protection-key rights of user pages", "Intel SDM volume 3A 5.6.2")
PKRS = _keys("PKRS", 64, "protection-key rights of supervisor pages, MSR 6E1H", "Intel SDM volume 3A 5.6.2")
PAT = Layout(
    "IA32_PAT", *(f for i in range(8) for f in (bits(f"PA{i}", 3), res0(5))), title="page attribute table, MSR 277H",
    source="Intel SDM volume 3A 13.12.2",
)  # fmt: skip
MEMORY_TYPES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}  # Intel SDM volume 3A table 13-10

HLATP = Layout(
    "HLATP", res0(3), bit("PWT"), bit("PCD"), res0(7), address("BASE", 40), res0(12),
    title="root of hypervisor-managed linear-address translation (VMCS field)", source="Intel SDM volume 3A table 5-12",
)  # fmt: skip
EPTP = Layout(
    "EPTP", bits("MT", 3), bits("WALK", 3), bit("AD"), bit("SSS"), res0(4), address("BASE", 40), res0(12),
    title="extended-page-table pointer: memory type, walk length - 1, accessed and dirty, supervisor shadow stacks",
    source="Intel SDM volume 3C table 26-9",
)  # fmt: skip

LAYOUTS = merge(CR0, CR3, CR4, EFER, RFLAGS, PKRU, PKRS, PAT, HLATP, EPTP)

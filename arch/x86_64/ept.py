"""Extended page tables: entries, exit qualification, sub-page permissions (Intel SDM volume 3C chapter 30)."""

from __future__ import annotations

from construct import Renamed

from ..layout import Layout, address, bit, bits, ignored, merge, res0

_SOURCE = "Intel SDM volume 3C 30.3"


def _table(name: str, title: str) -> Layout:
    fields = [bit("R"), bit("W"), bit("X"), res0(4), bit("PS"), bit("A"), ignored(), bit("XU"), ignored()]
    return Layout(name, *fields, address("ADDR", 40), ignored(12), title=title, source=_SOURCE)


def _leaf(name: str, shift: int, title: str) -> Layout:
    fields: list[Renamed] = [bit("R"), bit("W"), bit("X"), bits("EMT", 3), bit("IPAT")]
    fields += [bit("PS") if shift > 12 else ignored(), bit("A"), bit("D"), bit("XU"), ignored()]
    fields += [res0(shift - 12)] if shift > 12 else []
    fields += [address("ADDR", 52 - shift), ignored(5), bit("VGP"), bit("PW"), ignored(), bit("SSS")]
    fields += [bit("SPP") if shift == 12 else ignored(), ignored(), bit("SVE")]
    return Layout(name, *fields, title=title, source=_SOURCE)


EPT_PML5E = _table("EPT_PML5E", "EPT with 5 levels: entry of the root table")
EPT_PML4E = _table("EPT_PML4E", "EPT: points at a page-directory-pointer table")
EPT_PDPTE = _table("EPT_PDPTE", "EPT: points at a page directory")
EPT_PDPTE_1G = _leaf("EPT_PDPTE_1G", 30, "EPT: maps a 1-GByte page")
EPT_PDE = _table("EPT_PDE", "EPT: points at a page table")
EPT_PDE_2M = _leaf("EPT_PDE_2M", 21, "EPT: maps a 2-MByte page")
EPT_PTE = _leaf("EPT_PTE", 12, "EPT: maps a 4-KByte page")
EPT_QUALIFICATION = Layout(
    "EPT_QUALIFICATION", bit("READ"), bit("WRITE"), bit("FETCH"), bit("R"), bit("W"), bit("X"), bit("XU"),
    bit("LA_VALID"), bit("FINAL"), bit("USER_PAGE"), bit("WRITABLE_PAGE"), bit("XD_PAGE"), bit("NMI"),
    bit("SHADOW_STACK"), bit("SSS"), bit("VGP"), bit("ASYNC"), res0(47),
    title="exit qualification of an EPT violation", source="Intel SDM volume 3C table 29-7",
)  # fmt: skip
SPPT_ENTRY = Layout(
    "SPPT_ENTRY", bit("V"), res0(11), address("ADDR", 40), res0(12),
    title="sub-page-permission table: points at the next table", source="Intel SDM volume 3C 30.3.4",
)  # fmt: skip
SPP_QUALIFICATION = Layout(
    "SPP_QUALIFICATION", res0(11), bit("MISS"), bit("NMI"), res0(51),
    title="exit qualification of an SPP-related event: a miss, or a misconfiguration",
    source="Intel SDM volume 3C 29.2.1",
)  # fmt: skip

LAYOUTS = merge(
    EPT_PML5E, EPT_PML4E, EPT_PDPTE, EPT_PDPTE_1G, EPT_PDE, EPT_PDE_2M, EPT_PTE, EPT_QUALIFICATION, SPPT_ENTRY,
    SPP_QUALIFICATION,
)  # fmt: skip

"""Paging-structure entries of x86: 4- and 5-level, PAE and 32-bit paging (Intel SDM volume 3A 5.3 to 5.5).

Bit 0 first, with the manual's field names. Address fields reach up to bit 51; which of those bits a processor reserves
depends on its MAXPHYADDR and is computed, not declared.
"""

from __future__ import annotations

from construct import Renamed

from ..layout import Layout, address, bit, bits, ignored, merge, res0

_LOW = ("P", "RW", "US", "PWT", "PCD", "A")


def _flags() -> list[Renamed]:
    return [bit(name) for name in _LOW]


def _table(name: str, title: str, section: str) -> Layout:
    """An entry that points at a table: bit 7 is PS and has to be 0 where no leaf may stand."""
    fields = [*_flags(), ignored(), bit("PS"), ignored(3), bit("R"), address("ADDR", 40), ignored(11), bit("XD")]
    return Layout(name, *fields, title=title, source=f"Intel SDM volume 3A {section}")


def _leaf(name: str, shift: int, title: str, section: str) -> Layout:
    """An entry that maps a page: PAT is bit 7 in a PTE (no PS there) and bit 12 in larger pages."""
    fields = [*_flags(), bit("D"), bit("PAT" if shift == 12 else "PS"), bit("G"), ignored(2), bit("R")]
    if shift > 12:
        fields += [bit("PAT"), res0(shift - 13)]
    fields += [address("ADDR", 52 - shift), ignored(7), bits("PK", 4), bit("XD")]
    return Layout(name, *fields, title=title, source=f"Intel SDM volume 3A {section}")


PML5E = _table("PML5E", "5-level paging: entry of the root table", "table 5-14")
PML4E = _table("PML4E", "4-level paging: entry of the root table", "table 5-15")
PDPTE = _table("PDPTE", "page-directory-pointer-table entry that points at a page directory", "table 5-17")
PDPTE_1G = _leaf("PDPTE_1G", 30, "page-directory-pointer-table entry that maps a 1-GByte page", "table 5-16")
PDE = _table("PDE", "page-directory entry that points at a page table", "table 5-19")
PDE_2M = _leaf("PDE_2M", 21, "page-directory entry that maps a 2-MByte page", "table 5-18")
PTE = _leaf("PTE", 12, "page-table entry that maps a 4-KByte page", "table 5-20")


def _pae(name: str, *middle: Renamed, title: str, section: str) -> Layout:
    """PAE entries: bits 62:52 are reserved, not ignored; no protection keys, no R."""
    fields = [*middle, address("ADDR", 52 - sum(f.sizeof() for f in middle)), res0(11), bit("XD")]
    return Layout(name, *fields, title=title, source=f"Intel SDM volume 3A {section}")


def _legacy(name: str, *fields: Renamed, title: str, section: str) -> Layout:
    """32-bit paging: 4-byte entries without XD."""
    return Layout(name, *fields, title=title, source=f"Intel SDM volume 3A {section}")


PAE_PDPTE = Layout(
    "PAE_PDPTE", bit("P"), res0(2), bit("PWT"), bit("PCD"), res0(4), ignored(3), address("ADDR", 40), res0(12),
    title="PAE paging: page-directory-pointer-table entry, loaded with CR3", source="Intel SDM volume 3A table 5-8",
)  # fmt: skip
PAE_PDE = _pae(
    "PAE_PDE", *_flags(), ignored(), bit("PS"), ignored(4), title="PAE paging: points at a page table",
    section="table 5-10",
)  # fmt: skip
PAE_PDE_2M = _pae(
    "PAE_PDE_2M", *_flags(), bit("D"), bit("PS"), bit("G"), ignored(3), bit("PAT"), res0(8),
    title="PAE paging: maps a 2-MByte page", section="table 5-9",
)  # fmt: skip
PAE_PTE = _pae(
    "PAE_PTE", *_flags(), bit("D"), bit("PAT"), bit("G"), ignored(3), title="PAE paging: maps a 4-KByte page",
    section="table 5-11",
)  # fmt: skip
PDE32 = _legacy(
    "PDE32", *_flags(), ignored(), bit("PS"), ignored(4), address("ADDR", 20),
    title="32-bit paging: points at a page table", section="table 5-5",
)  # fmt: skip
PDE32_4M = _legacy(
    "PDE32_4M", *_flags(), bit("D"), bit("PS"), bit("G"), ignored(3), bit("PAT"), bits("ADDR_39_32", 8), res0(),
    address("ADDR", 10), title="32-bit paging with PSE: maps a 4-MByte page, PSE-36 address bits",
    section="table 5-4",
)  # fmt: skip
PTE32 = _legacy(
    "PTE32", *_flags(), bit("D"), bit("PAT"), bit("G"), ignored(3), address("ADDR", 20),
    title="32-bit paging: maps a 4-KByte page", section="table 5-6",
)  # fmt: skip

LAYOUTS = merge(
    PML5E, PML4E, PDPTE, PDPTE_1G, PDE, PDE_2M, PTE,
    PAE_PDPTE, PAE_PDE, PAE_PDE_2M, PAE_PTE, PDE32, PDE32_4M, PTE32,
)  # fmt: skip

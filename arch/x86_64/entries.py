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

LAYOUTS = merge(PML5E, PML4E, PDPTE, PDPTE_1G, PDE, PDE_2M, PTE)

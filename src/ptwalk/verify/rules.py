"""Rules for pagemap words that page tables alone cannot foretell: each needs evidence from elsewhere in the capture.

A rule is asked only where the plain comparison fails, and what it decides is counted under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..arch.linux_proc import KPF
from .tables import PFRAME, PRESENT, SOFT_DIRTY, SWAP, UFFD_WP, Item

_FRAME = PFRAME | PRESENT


@dataclass(frozen=True, slots=True)
class Case:
    """One pagemap word beside what the tables say.

    `word` and `tables` are pagemap words (bits of COMPARED), `item` is the entry behind `tables`. `flags` are the
    area's VmFlags from smaps (None where unknown). `moving` says that the process was running while /proc was read and
    did not just spin in user mode, `later` is its word at the next checkpoint (None where there is none) and
    `kpageflags` the flags of the tables' frame.
    """

    word: int
    tables: int
    item: Item | None
    flags: frozenset[str] | None
    moving: bool
    later: Callable[[], int | None]
    kpageflags: Callable[[], int | None]


def _area(case: Case, flag: str) -> bool:
    return case.flags is not None and flag in case.flags


def _area_bits(case: Case) -> int:
    return SOFT_DIRTY if _area(case, "sd") else 0


def soft_dirty_area(case: Case) -> bool:
    """VM_SOFTDIRTY (smaps: sd) marks every page of the area, mapped or not."""
    return case.word == case.tables | SOFT_DIRTY and _area(case, "sd")


def pfnmap_area(case: Case) -> bool:
    """pagemap shows areas with VM_PFNMAP (smaps: pf) as empty (fs/proc/task_mmu.c, walk_page_test)."""
    return case.word == _area_bits(case) and _area(case, "pf")


def hugetlb_soft_dirty(case: Case) -> bool:
    """In hugetlb areas (smaps: ht) soft-dirty comes from the area alone (pagemap_hugetlb_range)."""
    return _area(case, "ht") and case.word == case.tables & ~SOFT_DIRTY | _area_bits(case)


def hugetlb_not_present(case: Case) -> bool:
    """In hugetlb areas (smaps: ht) entries that are not present show nothing but userfaultfd's write protection."""
    hidden = case.tables & UFFD_WP | _area_bits(case)
    return _area(case, "ht") and bool(case.tables & SWAP) and case.word == hidden


def faulted_since(case: Case) -> bool:
    """pagemap saw an empty page, and the process, at work while /proc was read, has touched it since.

    The evidence is the word at the next checkpoint, which says what the tables say now, or where there is none
    kpageflags: the frame is mapped.
    """
    if not case.moving or case.word & ~SOFT_DIRTY or not case.tables & PRESENT:
        return False
    later = case.later()
    if later is not None:
        return later & _FRAME == case.tables & _FRAME
    flags = case.kpageflags()
    return flags is not None and bool(flags & KPF.mask("MMAP"))


def unknown_area(case: Case) -> bool:
    """No smaps tells this area's flags, so soft-dirty may come from the area."""
    return case.flags is None and case.word & ~SOFT_DIRTY == case.tables & ~SOFT_DIRTY


RULES: dict[str, Callable[[Case], bool]] = {
    "hidden by pagemap (VM_PFNMAP)": pfnmap_area,
    "hugetlb: not-present entries are hidden": hugetlb_not_present,
    "touched since /proc was read (the process was running)": faulted_since,
}
"""Rules for words that differ from the tables in more than soft-dirty."""

SOFT_DIRTY_RULES: dict[str, Callable[[Case], bool]] = {
    "from the area (VM_SOFTDIRTY)": soft_dirty_area,
    "from the area alone (hugetlb)": hugetlb_soft_dirty,
    "not comparable: no smaps for the area": unknown_area,
}
"""Rules for words that differ from the tables in soft-dirty alone."""


def decide(case: Case) -> str | None:
    """The name of the first rule that explains the difference, or None."""
    rules = RULES if (case.word ^ case.tables) & ~SOFT_DIRTY else SOFT_DIRTY_RULES
    return next((name for name, rule in rules.items() if rule(case)), None)

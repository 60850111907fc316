"""What of the /proc files changed between kernels, as one table of facts by release."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...arch.errors import InputError

Release = tuple[int, int]


@dataclass(frozen=True)
class ProcRules:
    """How one kernel prints and counts.

    `smaps_lines` are the labels of smaps in order. `nonpresent_shared`: smaps counts entries without a present page
    (migration, hwpoison, device-exclusive) as shared with full Pss; before 6.11 their mapcount decided.
    `exclusive_needs_present`: PM_MMAP_EXCLUSIVE only with PM_PRESENT (6.11). `exclusive_each_page`: inside a PMD every
    page is asked; else the PMD's first page answers for all (before 6.11, and again since 6.15 lost the index: the
    captured 6.1 and 7.3 kernels agree). `guard_region`: PM_GUARD_REGION exists (6.15). `thp_eligible_width` is the
    width of that line's number. `typed_pages_count`: kpagecount of a page that carries a page type.
    """

    smaps_lines: tuple[str, ...]
    nonpresent_shared: bool = True
    exclusive_needs_present: bool = True
    exclusive_each_page: bool = True
    guard_region: bool = True
    thp_eligible_width: int = 8


_SMAPS_LINES: tuple[tuple[str, Release], ...] = (
    ("Size", (2, 6)),
    ("KernelPageSize", (2, 6)),
    ("MMUPageSize", (2, 6)),
    ("Rss", (2, 6)),
    ("Pss", (2, 6)),
    ("Pss_Dirty", (6, 0)),
    ("Shared_Clean", (2, 6)),
    ("Shared_Dirty", (2, 6)),
    ("Private_Clean", (2, 6)),
    ("Private_Dirty", (2, 6)),
    ("Referenced", (2, 6)),
    ("Anonymous", (2, 6)),
    ("KSM", (6, 7)),
    ("LazyFree", (4, 12)),
    ("AnonHugePages", (2, 6)),
    ("ShmemPmdMapped", (4, 8)),
    ("FilePmdMapped", (5, 4)),
    ("Shared_Hugetlb", (4, 3)),
    ("Private_Hugetlb", (4, 3)),
    ("Swap", (2, 6)),
    ("SwapPss", (4, 3)),
    ("Locked", (2, 6)),
    ("THPeligible", (5, 0)),
    ("ProtectionKey", (4, 6)),
    ("VmFlags", (3, 8)),
)

PMD_EACH_PAGE: tuple[Release, Release] = ((6, 11), (6, 15))
"""Kernels from the first release on and before the second ask every page of a PMD for PM_MMAP_EXCLUSIVE."""

AS_MEANT = ProcRules(tuple(label for label, _ in _SMAPS_LINES))
"""The newest form of every file, with PM_MMAP_EXCLUSIVE decided page by page as it was meant."""


def parse_release(release: str) -> Release:
    """Major and minor of a kernel release string; InputError where there are none.

    >>> parse_release("6.1.0-56-cloud-amd64")
    (6, 1)
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise InputError("not a kernel release", field="release", value=release)
    return int(match[1]), int(match[2])


def proc_rules(release: str | None) -> ProcRules:
    """The rules of a release string; without one, the newest form as it was meant.

    >>> proc_rules("6.1.0-56-arm64").nonpresent_shared, proc_rules("7.3.4").exclusive_each_page
    (False, False)
    >>> "KSM" in proc_rules("6.1.0").smaps_lines, proc_rules(None).exclusive_each_page
    (False, True)
    """
    if release is None:
        return AS_MEANT
    version = parse_release(release)
    return ProcRules(
        tuple(label for label, since in _SMAPS_LINES if version >= since),
        nonpresent_shared=version >= (6, 11),
        exclusive_needs_present=version >= (6, 11),
        exclusive_each_page=PMD_EACH_PAGE[0] <= version < PMD_EACH_PAGE[1],
        guard_region=version >= (6, 15),
        thp_eligible_width=8 if version >= (6, 8) else 0,
    )

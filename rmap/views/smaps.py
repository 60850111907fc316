"""/proc/PID/smaps and smaps_rollup: the kernel's walk over one VMA's entries, and its text."""

from __future__ import annotations

from collections.abc import Iterable

from ..figures import PSS_SHIFT, Entry, MemSizeStats, pss_kb, smaps_account, smaps_hugetlb
from ..folio import Folio
from ..models import Model
from .inputs import Frames, MappedProcess, PageEntry, State, VmaFacts, is_hugetlb, prot
from .rules import ProcRules

BYTES = {
    "Rss": "resident",
    "Shared_Clean": "shared_clean",
    "Shared_Dirty": "shared_dirty",
    "Private_Clean": "private_clean",
    "Private_Dirty": "private_dirty",
    "Referenced": "referenced",
    "Anonymous": "anonymous",
    "KSM": "ksm",
    "LazyFree": "lazyfree",
    "AnonHugePages": "anonymous_thp",
    "ShmemPmdMapped": "shmem_thp",
    "FilePmdMapped": "file_thp",
    "Shared_Hugetlb": "shared_hugetlb",
    "Private_Hugetlb": "private_hugetlb",
    "Swap": "swap",
}
"""smaps' lines that are sums of bytes, with their field of MemSizeStats."""
SHARES = {
    "Pss": "pss",
    "Pss_Dirty": "pss_dirty",
    "Pss_Anon": "pss_anon",
    "Pss_File": "pss_file",
    "Pss_Shmem": "pss_shmem",
    "SwapPss": "swap_pss",
    "Locked": "pss_locked",
}
"""smaps' lines that are fixed-point shares, with their field of MemSizeStats."""
ROLLUP_ONLY = ("Pss_Anon", "Pss_File", "Pss_Shmem")
"""Lines that only smaps_rollup has, after Pss_Dirty (before 6.0: after Pss)."""
VMA_LINES = ("Size", "KernelPageSize", "MMUPageSize", "THPeligible", "ProtectionKey", "VmFlags")
"""Lines that come from the VMA, not from its page tables; smaps_rollup has none of them."""


def vma_stats(process: MappedProcess, vma: VmaFacts, frames: Frames, model: Model, rules: ProcRules) -> MemSizeStats:
    """smap_gather_stats of one VMA: what its entries and the folios behind them add up to under one model."""
    stats = MemSizeStats()
    if "pf" in vma.vm_flags:
        return stats
    locked = "lo" in vma.vm_flags
    account = _hugetlb_entry if is_hugetlb(vma) else _entry
    for entry in process.entries(vma.start, vma.end):
        account(stats, entry, frames, model, rules, locked)
    stats.swap += vma.swapped_shmem_pages * model.rules.page_size
    return stats


def _entry(stats: MemSizeStats, entry: PageEntry, frames: Frames, model: Model, rules: ProcRules, locked: bool) -> None:
    if entry.present:
        folio = None if entry.special else frames.folio(entry.pfn)
        if folio is not None:
            facts = Entry(entry.level, entry.pfn - folio.pfn, entry.young, entry.dirty, locked)
            smaps_account(stats, model, folio, facts)
    elif entry.state is State.SWAP:
        size = entry.nr_pages * model.rules.page_size
        stats.swap += size
        stats.swap_pss += (size << PSS_SHIFT) // max(frames.swap_count(entry.swap_type, entry.swap_offset), 1)
    elif entry.state.has_pfn:
        folio = frames.folio(entry.pfn)
        if folio is not None:
            present = entry.state is State.DEVICE_PRIVATE or not rules.nonpresent_shared
            facts = Entry(entry.level, entry.pfn - folio.pfn, locked=locked, present=present)
            smaps_account(stats, model, folio, facts)


def _hugetlb_entry(
    stats: MemSizeStats, entry: PageEntry, frames: Frames, model: Model, rules: ProcRules, locked: bool
) -> None:
    folio = frames.folio(entry.pfn) if entry.present or entry.state.has_pfn else None
    if folio is not None:
        present = entry.present or not rules.nonpresent_shared
        smaps_hugetlb(stats, model, folio, present=present, pmd_shared=entry.pmd_shared)


def rollup_stats(process: MappedProcess, frames: Frames, model: Model, rules: ProcRules) -> MemSizeStats:
    """The sums of all VMAs, before anything is truncated."""
    return add_up(vma_stats(process, vma, frames, model, rules) for vma in process.vmas())


def add_up(parts: Iterable[MemSizeStats]) -> MemSizeStats:
    """The sum of several VMAs' stats."""
    total = MemSizeStats()
    for part in parts:
        total.add(part)
    return total


def figures(stats: MemSizeStats) -> dict[str, int]:
    """Every line that page tables and folios determine, in kB as printed.

    >>> shown = figures(MemSizeStats(resident=8192, pss=(6144 << PSS_SHIFT) + 5))
    >>> shown["Rss"], shown["Pss"]
    (8, 6)
    """
    sums = {label: getattr(stats, name) >> 10 for label, name in BYTES.items()}
    return sums | {label: pss_kb(getattr(stats, name)) for label, name in SHARES.items()}


def header(vma: VmaFacts) -> str:
    """The line of maps that names the VMA; names start at column 73."""
    line = f"{vma.start:08x}-{vma.end:08x} {prot(vma)} {vma.offset:08x} {vma.device} {vma.inode} "
    return f"{line:<72} {vma.name}" if vma.name else line


def text(process: MappedProcess, frames: Frames, model: Model, rules: ProcRules) -> str:
    """smaps of a process, as the kernel prints it."""
    parts = []
    for vma in process.vmas():
        shown = figures(vma_stats(process, vma, frames, model, rules)) | _vma_figures(vma)
        lines = [_line(label, shown[label]) for label in rules.smaps_lines if label in shown]
        thp = f"THPeligible:    {int(vma.thp_eligible):{rules.thp_eligible_width or ''}}"
        key = [] if vma.pkey is None else [f"ProtectionKey:  {vma.pkey:8}"]
        flags = "VmFlags: " + "".join(f"{flag} " for flag in vma.vm_flags)
        parts += [header(vma), *lines, thp, *key, flags]
    return "".join(line + "\n" for line in parts)


def _vma_figures(vma: VmaFacts) -> dict[str, int]:
    page_kb = vma.page_size >> 10
    return {"Size": vma.end - vma.start >> 10, "KernelPageSize": page_kb, "MMUPageSize": vma.mmu_page_size >> 10}


def _line(label: str, kb: int) -> str:
    return f"{label + ':':<16}{kb:8} kB"


def rollup_text(process: MappedProcess, frames: Frames, model: Model, rules: ProcRules) -> str:
    """smaps_rollup of a process, as the kernel prints it."""
    vmas = list(process.vmas())
    start, end = (vmas[0].start, vmas[-1].end) if vmas else (0, 0)
    shown = figures(rollup_stats(process, frames, model, rules))
    labels = [label for label in rules.smaps_lines if label not in VMA_LINES]
    after = labels.index("Pss_Dirty" if "Pss_Dirty" in labels else "Pss") + 1
    labels[after:after] = ROLLUP_ONLY
    top = f"{start:08x}-{end:08x} ---p 00000000 00:00 0 "
    return "".join(line + "\n" for line in [f"{top:<72} [rollup]", *(_line(label, shown[label]) for label in labels)])


def folio_of(entry: PageEntry, frames: Frames) -> Folio | None:
    """The normal page's folio behind an entry: vm_normal_page of a present one, the frame a PFN entry names."""
    if entry.present:
        return None if entry.special else frames.folio(entry.pfn)
    return frames.folio(entry.pfn) if entry.state.has_pfn else None

"""/proc/PID/numa_maps: pages by state and node of each VMA."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..figures import mapmax
from ..folio import Flags, Folio
from ..models import Model
from .inputs import Frames, MappedProcess, PageEntry, VmaFacts, is_file, is_hugetlb


@dataclass
class NumaStats:
    """The kernel's struct numa_maps: base pages (huge pages for hugetlb), the largest mapcount, pages by node."""

    pages: int = 0
    anon: int = 0
    active: int = 0
    writeback: int = 0
    mapcount_max: int = 0
    dirty: int = 0
    swapcache: int = 0
    node: Counter[int] = field(default_factory=Counter)


def gather(stats: NumaStats, folio: Folio, nr_pages: int, dirty: bool, count: int, node: int) -> None:
    """gather_stats: one entry of `nr_pages` pages on `node`, its page mapped `count` times."""
    stats.pages += nr_pages
    flags = folio.flags
    stats.dirty += nr_pages if dirty or Flags.DIRTY in flags else 0
    stats.swapcache += nr_pages if Flags.SWAPCACHE in flags else 0
    stats.active += nr_pages if flags & (Flags.ACTIVE | Flags.UNEVICTABLE) else 0
    stats.writeback += nr_pages if Flags.WRITEBACK in flags else 0
    stats.anon += nr_pages if folio.is_anon else 0
    stats.mapcount_max = max(stats.mapcount_max, count)
    stats.node[node] += nr_pages


def vma_stats(process: MappedProcess, vma: VmaFacts, frames: Frames, model: Model) -> NumaStats:
    """gather_pte_stats and gather_hugetlb_stats over one VMA; a hugetlb entry counts as one page."""
    stats = NumaStats()
    if "pf" in vma.vm_flags:
        return stats
    for entry in process.entries(vma.start, vma.end):
        folio = _counted(entry, vma, frames)
        if folio is not None:
            count = mapmax(model, folio, entry.pfn - folio.pfn)
            nr_pages = 1 if is_hugetlb(vma) else entry.nr_pages
            gather(stats, folio, nr_pages, entry.dirty, count, frames.node(entry.pfn))
    return stats


def _counted(entry: PageEntry, vma: VmaFacts, frames: Frames) -> Folio | None:
    """can_gather_numa_stats: present, a normal page, not reserved, not device memory."""
    if not entry.present or entry.special:
        return None
    if frames.is_reserved(entry.pfn) and not is_hugetlb(vma):
        return None
    folio = frames.folio(entry.pfn)
    return None if folio is None or folio.is_device_private else folio


def tokens(stats: NumaStats, vma: VmaFacts) -> dict[str, int]:
    """The `name=number` tokens of the line in the kernel's order; none if no page is counted."""
    if not stats.pages:
        return {}
    huge = is_hugetlb(vma)
    shown = {
        "anon": stats.anon,
        "dirty": stats.dirty,
        "mapped": stats.pages if stats.pages not in (stats.anon, stats.dirty) else 0,
        "mapmax": stats.mapcount_max if stats.mapcount_max > 1 else 0,
        "swapcache": stats.swapcache,
    }
    found = {name: value for name, value in shown.items() if value}
    if stats.active < stats.pages and not huge:
        found["active"] = stats.active
    if stats.writeback:
        found["writeback"] = stats.writeback
    found |= {f"N{node}": pages for node, pages in sorted(stats.node.items())}
    found["kernelpagesize_kB"] = vma.page_size >> 10
    return found


def marks(vma: VmaFacts) -> list[str]:
    """file=, heap or stack, then huge.

    >>> from .inputs import Vma
    >>> marks(Vma(0, 4096, ("rd",), "/dev/zero (deleted)", inode=7))
    ['file=/dev/zero\\\\040(deleted)']
    """
    found = []
    if is_file(vma):
        found.append("file=" + "".join(f"\\{ord(c):03o}" if c in "\n\t= " else c for c in vma.name))
    elif vma.name in ("[heap]", "[stack]"):
        found.append(vma.name.strip("[]"))
    return [*found, "huge"] if is_hugetlb(vma) else found


def line(stats: NumaStats, vma: VmaFacts) -> str:
    """One line, as the kernel prints it."""
    counts = [f"{name}={value}" for name, value in tokens(stats, vma).items()]
    return " ".join([f"{vma.start:08x}", vma.policy, *marks(vma), *counts])


def text(process: MappedProcess, frames: Frames, model: Model) -> str:
    """numa_maps of a process, as the kernel prints it."""
    return "".join(line(vma_stats(process, vma, frames, model), vma) + "\n" for vma in process.vmas())

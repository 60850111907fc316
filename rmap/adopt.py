"""Adopt what a running kernel has built: folios from kpageflags, and every entry of its page tables through rmap.

Nothing of the counters is taken over: a folio starts unmapped, and each entry of each process adds its mapping.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from ..arch.errors import InputError
from ..arch.linux_proc import KPF
from .calls import Accounting
from .errors import Rejected
from .folio import NO_FLAGS, Flags, Folio, Kind
from .levels import Level
from .mm_id import Mm
from .views.inputs import PageEntry, State, VmaFacts, is_hugetlb
from .views.kpage import FOLIO_FLAGS
from .views.tables import ProcessTables

_BIT = {name: KPF.mask(name) for name in KPF}
_FLAG_BITS = [(_BIT[name], flag) for flag, name in FOLIO_FLAGS.items()]
_NO_FOLIO = KPF.mask("NOPAGE", "ZERO_PAGE")
MAX_ORDER = 18
"""The largest folio that is adopted: a 1-GiB huge page of 4K pages."""


@dataclass(frozen=True)
class KernelFacts:
    """What a kernel said of its frames, by frame number.

    `kpageflags` is None beyond what was captured. `refcount` is the folio's reference count as far as known, else 0.
    `young` is PG_young, which kpageflags does not show. `node` is the NUMA node.
    """

    kpageflags: Callable[[int], int | None]
    refcount: Callable[[int], int] = lambda pfn: 0
    young: Callable[[int], bool] = lambda pfn: False
    node: Callable[[int], int] = lambda pfn: 0


def kind_of(flags: int) -> Kind:
    """The kind of a folio whose head has these kpageflags.

    >>> kind_of(KPF.mask("ANON", "HUGE")), kind_of(KPF.mask("SWAPBACKED")), kind_of(0)
    (<Kind.HUGETLB_ANON: 'hugetlb_anon'>, <Kind.SHMEM: 'shmem'>, <Kind.FILE: 'file'>)
    """
    anon = bool(flags & _BIT["ANON"])
    if flags & _BIT["HUGE"]:
        return Kind.HUGETLB_ANON if anon else Kind.HUGETLB_FILE
    if flags & _BIT["KSM"]:
        return Kind.KSM
    if anon:
        return Kind.ANON
    return Kind.SHMEM if flags & _BIT["SWAPBACKED"] else Kind.FILE


class KernelFrames:
    """Folios built from a kernel's kpageflags when a frame is first asked for; satisfies views.inputs.Frames."""

    def __init__(self, acct: Accounting, facts: KernelFacts) -> None:
        self.acct, self.facts = acct, facts
        self.folios: dict[int, Folio] = {}
        self.swap_entries: Counter[tuple[int, int]] = Counter()
        self.unknown: set[int] = set()
        self._by_pfn: dict[int, Folio | None] = {}
        self._shared: set[int] = set()

    def folio(self, pfn: int) -> Folio | None:
        """The folio of a frame; None for zero pages, frames without a struct page and frames beyond kpageflags.

        The last are noted in `unknown`. InputError where kpageflags describes no folio.
        """
        try:
            return self._by_pfn[pfn]
        except KeyError:
            return self._adopt(pfn)

    def node(self, pfn: int) -> int:
        """The NUMA node of a frame."""
        return self.facts.node(pfn)

    def is_reserved(self, pfn: int) -> bool:
        """PageReserved."""
        return bool(self._flags(pfn) & _BIT["RESERVED"])

    def is_zero(self, pfn: int) -> bool:
        """Whether the frame belongs to a zero page; frames beyond kpageflags do not."""
        return bool(self._flags(pfn) & _BIT["ZERO_PAGE"])

    def swap_count(self, swap_type: int, swap_offset: int) -> int:
        """Entries that refer to a swap slot."""
        return self.swap_entries[swap_type, swap_offset]

    def seen_shared(self, entry: PageEntry) -> bool:
        """Whether this entry of a shared PMD table was seen before, through another process."""
        if not entry.pmd_shared:
            return False
        seen = entry.pfn in self._shared
        self._shared.add(entry.pfn)
        return seen

    def _flags(self, pfn: int) -> int:
        return self.facts.kpageflags(pfn) or 0

    def _adopt(self, pfn: int) -> Folio | None:
        if self.facts.kpageflags(pfn) is None:
            self.unknown.add(pfn)
        if pfn in self.unknown or self._flags(pfn) & _NO_FOLIO:
            self._by_pfn[pfn] = None
            return None
        head, order = self._extent(pfn)
        flags = self._flags(head)
        named = NO_FLAGS
        for bit, flag in _FLAG_BITS:
            if flags & bit:
                named |= flag
        if self.facts.young(head):
            named |= Flags.YOUNG
        folio = Folio(order, kind_of(flags), head, flags=named, fresh=False)
        folio.refs = self.facts.refcount(head)
        for model in self.acct.models.values():
            model.adopt(folio)
        self.folios[head] = folio
        self._by_pfn.update(dict.fromkeys(range(head, head + folio.nr_pages), folio))
        return folio

    def _extent(self, pfn: int) -> tuple[int, int]:
        """The head and the order of the folio around a frame."""
        head, limit = pfn, 1 << MAX_ORDER
        while self._flags(head) & _BIT["COMPOUND_TAIL"] and pfn - head < limit:
            head -= 1
        if not self._flags(head) & _BIT["COMPOUND_HEAD"]:
            if head != pfn:
                raise InputError("kpageflags has a tail page without a head", field="pfn", value=pfn)
            return head, 0
        end = head + 1
        while self._flags(end) & _BIT["COMPOUND_TAIL"] and end - head <= limit:
            end += 1
        nr_pages = end - head
        if nr_pages & nr_pages - 1 or nr_pages > limit:
            raise InputError(f"kpageflags has a compound page of {nr_pages} pages", field="pfn", value=head)
        return head, nr_pages.bit_length() - 1


@dataclass
class AdoptedProcess:
    """A process with its VMAs and its tables, each entry read once; satisfies views.inputs.MappedProcess.

    `outside` lists addresses of entries that lie in no VMA, `refused` what the models would not count.
    """

    name: str
    areas: Sequence[VmaFacts]
    tables: ProcessTables
    mm: Mm
    outside: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _entries: dict[int, list[PageEntry]] = field(default_factory=dict)
    _by_va: list[PageEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = 0
        for vma in self.areas:
            self.outside += [entry.va for entry in self.tables.raw(at, vma.start)]
            at = vma.end
            self._by_va += self._read(vma)
        self.outside += [entry.va for entry in self.tables.raw(at, self.tables.tree.va_end)]

    def _read(self, vma: VmaFacts) -> Iterator[PageEntry]:
        if is_hugetlb(vma):
            yield from self.tables.entries(vma.start, vma.end, huge_page_size=vma.page_size)
            return
        special = self.tables.linux.software["SPECIAL"].mask if "pf" in vma.vm_flags else 0
        for raw in self.tables.raw(vma.start, vma.end):
            if not raw.raw & special:  # a device mapping has thousands of entries that no view looks at
                yield self.tables.page_entry(raw)

    @property
    def page_size(self) -> int:
        """Bytes of a base page."""
        return self.tables.page_size

    def vmas(self) -> Collection[VmaFacts]:
        """The VMAs in ascending order."""
        return self.areas

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries that map any part of a range."""
        first = bisect_left(self._by_va, start, key=attrgetter("va"))
        if first and self._by_va[first - 1].va + self._by_va[first - 1].nr_pages * self.page_size > start:
            first -= 1
        for at in range(first, len(self._by_va)):
            entry = self._by_va[at]
            if entry.va >= end:
                return
            yield entry

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers."""
        return self.tables.pte_tables(start, end)


Run = tuple[Folio, Level, int, int]
"""Mappings of one folio at one level: first page, pages."""


def mapped_folio(entry: PageEntry, frames: KernelFrames) -> Folio | None:
    """The folio an entry maps as rmap counts it: present pages, device-private and device-exclusive ones."""
    if entry.present:
        return None if entry.special else frames.folio(entry.pfn)
    counted = entry.state in (State.DEVICE_PRIVATE, State.DEVICE_EXCLUSIVE)
    return frames.folio(entry.pfn) if counted else None


def runs(process: AdoptedProcess, frames: KernelFrames) -> Iterator[Run]:
    """The mappings of a process outside hugetlb areas; neighbouring PTEs of one folio come as one run."""
    now: Run | None = None
    for entry in process.entries(0, process.tables.tree.va_end):
        folio = mapped_folio(entry, frames)
        if folio is None or folio.kind.is_hugetlb:
            continue
        page = entry.pfn - folio.pfn
        if now is not None and now[:2] == (folio, Level.PTE) and entry.level is Level.PTE and page == now[2] + now[3]:
            now = (folio, Level.PTE, now[2], now[3] + 1)
            continue
        if now is not None:
            yield now
        now = (folio, entry.level, page, entry.nr_pages)
    if now is not None:
        yield now


def adopt(process: AdoptedProcess, frames: KernelFrames) -> None:
    """Install every entry of a process: one mapping for each leaf, one reference for each swap entry.

    What the models refuse (a PMD that maps no PMD-sized folio ...) is left out and noted in `process.refused`. A PMD
    table that hugetlb processes share counts once.
    """
    for folio, level, first, n in runs(process, frames):
        add = frames.acct.add_anon_rmap if folio.is_anon else frames.acct.add_file_rmap
        try:
            add(folio, process.mm, level, first, n)
        except Rejected as error:
            process.refused.append(str(error))
    for entry in process.entries(0, process.tables.tree.va_end):
        if entry.state is State.SWAP:
            frames.swap_entries[entry.swap_type, entry.swap_offset] += 1
        huge = mapped_folio(entry, frames)
        if huge is not None and huge.kind.is_hugetlb and not frames.seen_shared(entry):
            frames.acct.hugetlb_add_rmap(huge)

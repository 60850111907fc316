"""Folios as a running kernel describes them in kpageflags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...arch.errors import InputError
from ...arch.linux_proc import KPF
from ..calls import Accounting
from ..folio import NO_FLAGS, Flags, Folio, Kind
from ..views.inputs import PageEntry
from ..views.kpage import FOLIO_FLAGS

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

    def count_swap(self, swap_type: int, swap_offset: int, n: int) -> None:
        """n more (or fewer) entries refer to a slot."""
        self.swap_entries[swap_type, swap_offset] += n

    def unreferenced(self, folio: Folio) -> None:
        """A captured folio stays: references do not move."""

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
        if head % nr_pages:
            raise InputError(f"a compound page of {nr_pages} pages is not aligned", field="pfn", value=head)
        return head, nr_pages.bit_length() - 1

"""Folios: the state that does not depend on the accounting model, and one set of counters per model."""

from __future__ import annotations

from enum import Enum, Flag, auto

from .mm_id import MM_ID_DUMMY
from .runs import PageRuns


class Kind(Enum):
    """What a folio holds; decides which rmap functions and which statistics apply.

    >>> Kind.SHMEM.is_anon, Kind.KSM.is_anon, Kind.HUGETLB_FILE.is_hugetlb
    (False, True, True)
    """

    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    KSM = "ksm"
    HUGETLB_ANON = "hugetlb_anon"
    HUGETLB_FILE = "hugetlb_file"

    @property
    def is_anon(self) -> bool:
        """folio_test_anon (KSM folios are anonymous)."""
        return self in (Kind.ANON, Kind.KSM, Kind.HUGETLB_ANON)

    @property
    def is_hugetlb(self) -> bool:
        """folio_test_hugetlb."""
        return self in (Kind.HUGETLB_ANON, Kind.HUGETLB_FILE)

    @property
    def is_page_cache(self) -> bool:
        """Whether the page cache holds references to the folio."""
        return self in (Kind.FILE, Kind.SHMEM, Kind.HUGETLB_FILE)


class Flags(Flag):
    """Folio flags (PG_*) that figures in /proc or rmap decisions read; per folio, not per page."""

    LOCKED = auto()
    REFERENCED = auto()
    UPTODATE = auto()
    DIRTY = auto()
    LRU = auto()
    ACTIVE = auto()
    WRITEBACK = auto()
    RECLAIM = auto()
    SWAPBACKED = auto()
    SWAPCACHE = auto()
    UNEVICTABLE = auto()
    MLOCKED = auto()
    HWPOISON = auto()
    PRIVATE = auto()
    YOUNG = auto()
    IDLE = auto()
    DEVICE_PRIVATE = auto()


NO_FLAGS = Flags(0)
"""No folio flag."""


class Counters:
    """One model's counters of one folio. Values are stored as the kernel stores them, -1 biased where it biases.

    Attribute names are the kernel's without the leading underscore; a field that a model does not keep stays at its
    initial value. `nr` is this folio's share of the model's node statistics, in pages, indexed by stats.Nr.
    `refused` is the sentence with which the model left this folio, None while it counts it.
    """

    __slots__ = (
        "entire_mapcount",
        "large_mapcount",
        "mapcount",
        "mm_id",
        "mm_id_mapcount",
        "nr",
        "nr_pages_mapped",
        "page_mapcount",
        "partially_mapped",
        "refused",
        "shared",
        "total_mapped_pages",
    )

    def __init__(self, page_mapcount: PageRuns | None) -> None:
        self.mapcount = -1
        self.large_mapcount = -1
        self.entire_mapcount = -1
        self.nr_pages_mapped = 0
        self.total_mapped_pages = 0
        self.mm_id = [MM_ID_DUMMY, MM_ID_DUMMY]
        self.mm_id_mapcount = [-1, -1]
        self.shared = False
        self.page_mapcount = page_mapcount
        self.partially_mapped = False
        self.nr = [0, 0, 0, 0, 0]
        self.refused: str | None = None

    def copy(self) -> Counters:
        """An independent copy."""
        twin = Counters(None if self.page_mapcount is None else self.page_mapcount.copy())
        for name in self.__slots__:
            if name != "page_mapcount":
                value = getattr(self, name)
                setattr(twin, name, value.copy() if isinstance(value, list) else value)
        return twin

    def key(self) -> tuple[object, ...]:
        """The content as a hashable tuple, mm ids left out."""
        pages = None if self.page_mapcount is None else self.page_mapcount.key()
        return (
            self.mapcount,
            self.large_mapcount,
            self.entire_mapcount,
            self.nr_pages_mapped,
            self.total_mapped_pages,
            *self.mm_id_mapcount,
            self.shared,
            self.partially_mapped,
            self.refused,
            pages,
        )


class Folio:
    """A folio of 1 << order pages from frame `pfn` on.

    Shared by all models: AnonExclusive marks, references, pins and flags. `refs` counts references without pins, since
    a pin costs one reference or GUP_PIN_COUNTING_BIAS of them depending on the model's layout (Model.refcount).
    `fresh` is true for an anonymous folio until its first mapping made it anonymous.

    >>> Folio(9, Kind.ANON, 0x1200)
    Folio(order=9, kind=Kind.ANON, pfn=0x1200)
    """

    __slots__ = ("_exclusive", "counters", "flags", "fresh", "kind", "nr_pages", "order", "pfn", "pins", "refs")

    def __init__(self, order: int, kind: Kind, pfn: int = 0, *, flags: Flags = NO_FLAGS, fresh: bool = False) -> None:
        self.order, self.kind, self.pfn = order, kind, pfn
        self.nr_pages = 1 << order
        self.flags = flags
        self.fresh = fresh
        self.refs = 0
        self.pins = 0
        self.counters: dict[str, Counters] = {}
        self._exclusive: PageRuns | None = None

    def __repr__(self) -> str:
        return f"Folio(order={self.order}, kind={self.kind}, pfn={self.pfn:#x})"

    @property
    def exclusive(self) -> PageRuns:
        """PageAnonExclusive of each page (0 or 1); a PMD mapping keeps the mark on its first page only."""
        if self._exclusive is None:
            self._exclusive = PageRuns(self.nr_pages)
        return self._exclusive

    @property
    def is_large(self) -> bool:
        """folio_test_large."""
        return self.order > 0

    @property
    def is_anon(self) -> bool:
        """folio_test_anon."""
        return self.kind.is_anon

    @property
    def is_device_private(self) -> bool:
        """folio_is_device_private: never pinned, never queued for a deferred split."""
        return Flags.DEVICE_PRIVATE in self.flags

    @property
    def in_swapcache(self) -> bool:
        """folio_test_swapcache."""
        return Flags.SWAPCACHE in self.flags

    def copy(self) -> Folio:
        """An independent copy, counters of every model included."""
        twin = Folio(self.order, self.kind, self.pfn, flags=self.flags, fresh=self.fresh)
        twin.refs, twin.pins = self.refs, self.pins
        twin._exclusive = None if self._exclusive is None else self._exclusive.copy()
        twin.counters = {name: counters.copy() for name, counters in self.counters.items()}
        return twin

"""A stream of rmap calls without page tables: who maps what, the references that go with it, compound operations.

This is what vectors, the exhaustive exploration and property tests drive. It keeps the list of mappings itself, so that
the counters can be recounted from it by brute force (truth.py), and writes down every primitive call it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .calls import EBUSY, Accounting
from .errors import Rejected
from .folio import Folio
from .levels import Level, LevelOrders
from .mm_id import Mm
from .runs import PageRuns

Run = tuple[Level, int, int]
"""Entries of one level that are removed or duplicated in one call: level, first page, pages."""
Call = tuple[str | int, ...]
"""A primitive call as the vectors write it, the result last."""

LEVEL_NAMES = {"pte": Level.PTE, "pmd": Level.PMD, "pud": Level.PUD}


class Mapped:
    """What one mm maps of one folio: PTE mappings per page, and larger leaves by their first page.

    >>> mapped = Mapped(1024, LevelOrders())
    >>> mapped.change(Level.PTE, 500, 24, 1)
    >>> mapped.change(Level.PMD, 512, 512, 1)
    >>> [(level.name, first, n) for level, first, n in mapped.runs()]
    [('PTE', 500, 12), ('PTE', 512, 12), ('PMD', 512, 512)]
    """

    def __init__(self, nr_pages: int, levels: LevelOrders) -> None:
        self.levels = levels
        self.ptes = PageRuns(nr_pages)
        self.leaves: dict[tuple[int, Level], int] = {}

    def copy(self) -> Mapped:
        """An independent copy."""
        twin = Mapped(self.ptes.nr_pages, self.levels)
        twin.ptes, twin.leaves = self.ptes.copy(), self.leaves.copy()
        return twin

    def key(self) -> tuple[object, ...]:
        """The content as a hashable, orderable tuple."""
        return (self.ptes.key(), tuple(sorted((first, int(level), n) for (first, level), n in self.leaves.items())))

    def __bool__(self) -> bool:
        return bool(self.leaves) or self.ptes.any(0, self.ptes.nr_pages)

    def has(self, level: Level, first: int, n: int) -> bool:
        """Whether each entry of the range exists."""
        if level == Level.PTE:
            return self.ptes.minimum(first, n) > 0
        return all((page, level) in self.leaves for page in range(first, first + n, self.levels.size(level)))

    def overlaps(self, first: int, n: int) -> bool:
        """Whether any entry maps a page of the range."""
        return self.ptes.any(first, n) or any(
            page < first + n and first < page + self.levels.size(level) for page, level in self.leaves
        )

    def change(self, level: Level, first: int, n: int, delta: int) -> None:
        """Add (delta 1) or remove (delta -1) the entries of the range."""
        if level == Level.PTE:
            self.ptes.add(first, n, delta)
            return
        for page in range(first, first + n, self.levels.size(level)):
            left = self.leaves.get((page, level), 0) + delta
            if left:
                self.leaves[page, level] = left
            else:
                del self.leaves[page, level]

    def runs(self) -> Iterator[Run]:
        """All entries in the order fork and exit take them: ascending, a PTE run at most one page table long.

        A page mapped several times (page cache, several VMAs) comes again in a later round.
        """
        rounds = max([count for _, _, count in self.ptes.runs()] + [*self.leaves.values()])
        for nth in range(rounds):
            found = [(first, level) for (first, level), count in self.leaves.items() if count > nth]
            items = [(level, first, self.levels.size(level)) for first, level in found]
            yield from sorted([*self._pte_runs(nth), *items], key=lambda run: (run[1], run[0]))

    def _pte_runs(self, nth: int) -> Iterator[Run]:
        table = self.levels.size(Level.PMD)
        start, end = 0, 0
        for first, n, count in [*self.ptes.runs(), (self.ptes.nr_pages, 0, 0)]:
            if count > nth and first == end and start < end:
                end = first + n
                continue
            while start < end:
                stop = min(end, (start // table + 1) * table)
                yield Level.PTE, start, stop - start
                start = stop
            start, end = (first, first + n) if count > nth else (0, 0)

    def entries(self) -> Iterator[tuple[Level, int, int]]:
        """Every mapping as (level, first page, how often), PTEs page by page: for the recount."""
        for first, n, count in self.ptes.runs():
            if count:
                yield from ((Level.PTE, page, count) for page in range(first, first + n))
        for (first, level), count in self.leaves.items():
            yield level, first, count


class Stream:
    """Folios by number, mms by number, and the operations of the vectors' FORMAT on them.

    >>> stream = Stream(Accounting(["precise"]))
    >>> from .folio import Kind
    >>> stream.folios.append(stream.acct.folio(9, Kind.ANON))
    >>> stream.new(0, 1, True)
    >>> stream.fork(1, 2)
    >>> stream.calls
    [('new', 0, 1, 1, 0), ('dup', 0, 1, 2, 'pmd', 0, 512, 0)]
    """

    def __init__(self, acct: Accounting, locked: tuple[int, ...] = ()) -> None:
        self.acct = acct
        self.levels = acct.rules.levels
        self.folios: list[Folio] = []
        self.mms: dict[int, Mm] = {}
        self.maps: dict[tuple[int, int], Mapped] = {}
        self.locked = frozenset(locked)
        self.calls: list[Call] = []
        self.page_cache_runs: Callable[[int, int], list[Run] | None] = lambda f, m: None
        """Overrides the order in which page-cache mappings of (folio, mm) are taken; None keeps Mapped.runs()."""

    def copy_into(self, twin: Stream) -> None:
        """Give an independent copy of mms and mappings to a stream on copied folios."""
        twin.mms = {k: Mm(mm.id, mm.has_pinned) for k, mm in self.mms.items()}
        twin.maps = {k: mapped.copy() for k, mapped in self.maps.items()}

    def mm(self, m: int) -> Mm:
        """The mm of that number; its id is the number."""
        return self.mms.setdefault(m, Mm(m))

    def mapped(self, f: int, m: int) -> Mapped:
        """What mm m maps of folio f."""
        if (f, m) not in self.maps:
            self.maps[f, m] = Mapped(self.folios[f].nr_pages, self.levels)
        return self.maps[f, m]

    def entries(self, level: Level, n: int) -> int:
        """Page-table entries that n pages are at that level."""
        return n >> self.levels.order(level)

    def _wrote(self, *call: str | int) -> None:
        self.calls.append(call)

    # ---- primitive calls

    def new(self, f: int, m: int, exclusive: bool) -> None:
        """First mapping of a new anonymous folio."""
        folio = self.folios[f]
        count = self.acct.new_mappings(folio)
        self.acct.get(folio, count)
        try:
            self.acct.add_new_anon_rmap(folio, self.mm(m), exclusive=exclusive)
        except Rejected:
            self.acct.put(folio, count)
            raise
        level = Level.PTE if folio.kind.is_hugetlb else self.acct.driver.new_level(folio)
        self.mapped(f, m).change(level, 0, 1 if folio.kind.is_hugetlb else folio.nr_pages, 1)
        self._wrote("new", f, m, int(exclusive), 0)

    def add(self, f: int, m: int, level: Level, first: int, n: int, exclusive: bool, *, exempt: bool = False) -> None:
        """Mappings of an existing folio; raises Rejected and changes nothing if the model refuses."""
        folio, mm, locked = self.folios[f], self.mm(m), m in self.locked
        count = self.entries(level, n)
        self.acct.get(folio, count)
        try:
            if folio.kind.is_hugetlb:
                self.acct.hugetlb_add_rmap(folio, exclusive=exclusive)
            elif folio.is_anon:
                self.acct.add_anon_rmap(folio, mm, level, first, n, exclusive=exclusive, locked=locked, exempt=exempt)
            else:
                self.acct.add_file_rmap(folio, mm, level, first, n, locked=locked)
        except Rejected:
            self.acct.put(folio, count)
            raise
        self.mapped(f, m).change(level, first, n, 1)
        self._wrote("add", f, m, level.name.lower(), first, n, int(exclusive), 0)

    def rem(self, f: int, m: int, level: Level, first: int, n: int) -> None:
        """Remove mappings that m has."""
        folio, mapped = self.folios[f], self.mapped(f, m)
        if not mapped.has(level, first, n):
            raise Rejected("stream", f"mm {m} does not map pages {first}..{first + n - 1} of folio {f} by {level.name}")
        if folio.kind.is_hugetlb:
            self.acct.hugetlb_remove_rmap(folio)
        else:
            self.acct.remove_rmap(folio, self.mm(m), level, first, n, locked=m in self.locked)
        mapped.change(level, first, n, -1)
        self.acct.put(folio, self.entries(level, n))
        self._wrote("rem", f, m, level.name.lower(), first, n, 0)

    def dup(self, f: int, src: int, dst: int, level: Level, first: int, n: int) -> int:
        """Duplicate mappings of src into dst as fork does: 0 or -EBUSY."""
        folio = self.folios[f]
        if not self.mapped(f, src).has(level, first, n):
            raise Rejected("stream", f"mm {src} does not map pages {first}..{first + n - 1} of folio {f}")
        count = self.entries(level, n)
        self.acct.get(folio, count)
        result = self._dup_rmap(folio, src, dst, level, first, n)
        if result:
            self.acct.put(folio, count)
        else:
            self.mapped(f, dst).change(level, first, n, 1)
        self._wrote("dup", f, src, dst, level.name.lower(), first, n, result)
        return result

    def _dup_rmap(self, folio: Folio, src: int, dst: int, level: Level, first: int, n: int) -> int:
        if folio.kind.is_hugetlb and folio.is_anon:
            return self.acct.hugetlb_try_dup_anon_rmap(folio, self.mm(src))
        if folio.kind.is_hugetlb:
            self.acct.hugetlb_add_rmap(folio)
            return 0
        if folio.is_anon:
            return self.acct.try_dup_anon_rmap(folio, self.mm(dst), self.mm(src), level, first, n)
        self.acct.dup_file_rmap(folio, self.mm(dst), level, first, n)
        return 0

    def share(self, f: int, level: Level, page: int) -> int:
        """Try to drop the exclusive mark of a page: 0 or -EBUSY."""
        result = self.acct.try_share_anon_rmap(self.folios[f], page)
        self._wrote("share", f, level.name.lower(), page, result)
        return result

    def wp(self, f: int, m: int, page: int) -> int:
        """Write fault of m on a page without exclusive mark: 1 and the mark set if it may be reused, else 0."""
        folio = self.folios[f]
        reuse = self.acct.wp_can_reuse_anon_folio(folio)
        if reuse:
            folio.exclusive.fill(page, 1, 1)
        self._wrote("wp", f, m, page, int(reuse))
        return int(reuse)

    def pin(self, f: int, m: int, n: int) -> None:
        """n pins through m."""
        self.acct.pin(self.folios[f], self.mm(m), n)
        self._wrote("pin", f, m, n, 0)

    def unpin(self, f: int, n: int) -> None:
        """n pins less."""
        self.acct.unpin(self.folios[f], n)
        self._wrote("unpin", f, n, 0)

    def swc(self, f: int, present: bool) -> None:
        """Enter or leave the swap cache."""
        self.acct.set_swapcache(self.folios[f], present)
        self._wrote("swc", f, int(present), 0)

    # ---- compound operations

    def runs(self, f: int, m: int) -> list[Run]:
        """The calls in which m's mappings of folio f are taken by fork and exit."""
        folio, mapped = self.folios[f], self.maps.get((f, m))
        if mapped is None or not mapped:
            return []
        if not folio.is_anon:
            override = self.page_cache_runs(f, m)
            if override is not None:
                return override
        return list(mapped.runs())

    def fork(self, src: int, dst: int, files: bool = True) -> None:
        """Copy src's mappings to dst, which maps nothing; page-cache folios only if `files`."""
        for f, folio in enumerate(self.folios):
            if not folio.is_anon and not files:
                continue
            for level, first, n in self.runs(f, src):
                if self.dup(f, src, dst, level, first, n) == 0 or folio.kind.is_hugetlb:
                    continue
                if level == Level.PMD:
                    self.split(f, src, first)
                if level != Level.PUD:
                    self._dup_by_mark(f, src, dst, first, n)

    def _dup_by_mark(self, f: int, src: int, dst: int, first: int, n: int) -> None:
        """One more try for each run of equal exclusive marks; what stays busy would be copied."""
        for start, pages, _ in list(self.folios[f].exclusive.runs(first, n)):
            self.dup(f, src, dst, Level.PTE, start, pages)

    def exit(self, m: int) -> None:
        """Remove all mappings of m, forget that it pinned."""
        for f in range(len(self.folios)):
            for level, first, n in self.runs(f, m):
                self.rem(f, m, level, first, n)
            self.maps.pop((f, m), None)
        self.mms.pop(m, None)

    def split(self, f: int, m: int, first: int) -> None:
        """Remap an anonymous PMD by PTEs: the PTEs come before the PMD goes; never rejected early."""
        pages = self.levels.size(Level.PMD)
        if not self.mapped(f, m).has(Level.PMD, first, pages):
            raise Rejected("stream", f"mm {m} does not map page {first} of folio {f} by a PMD")
        exclusive = bool(self.folios[f].exclusive[first])
        self.add(f, m, Level.PTE, first, pages, exclusive, exempt=True)
        self.rem(f, m, Level.PMD, first, pages)

    def splitpud(self, f: int, m: int) -> None:
        """Remap an anonymous PUD by PMDs (total-mapped-pages only)."""
        pages = self.levels.size(Level.PUD)
        if not self.mapped(f, m).has(Level.PUD, 0, pages):
            raise Rejected("stream", f"mm {m} does not map folio {f} by a PUD")
        self.add(f, m, Level.PMD, 0, pages, bool(self.folios[f].exclusive[0]), exempt=True)
        self.rem(f, m, Level.PUD, 0, pages)

    def unmap(self, f: int, m: int, level: Level, first: int, n: int) -> None:
        """Unmap as reclaim does: an exclusive page is shared first and stays mapped if it may be pinned."""
        step = 1 if level == Level.PTE else n
        for page in range(first, first + n, step):
            if self.folios[f].exclusive[page] and self.share(f, level, page) == EBUSY:
                continue
            self.rem(f, m, level, page, step)

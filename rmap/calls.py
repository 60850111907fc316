"""The rmap functions the rest of mm calls, applied to several accounting models at once.

One stream of calls drives all models. What the page tables hold, AnonExclusive marks, references, pins and flags exist
once; counters, statistics and the deferred-split queue exist per model. Where a call answers (fork's -EBUSY, reuse of
an anonymous page) the *driver* decides for all; mapcounts and mm-id slots move identically in every model, so answers
can differ between models only where a folio's pin counter does (order 1 on 32-bit) or where a limit is hit. What the
driver refuses raises Rejected and changes nothing; another model that refuses leaves that folio for good
(Counters.refused says why) and the stream goes on.

As in the kernel, callers take references before these calls and drop them after removals; nothing here moves them
except set_swapcache, pin and the reuse test's dropping of the swap cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .errors import CounterOverflow, FreeError, Rejected
from .folio import NO_FLAGS, Flags, Folio, Kind
from .levels import Level, Rules
from .mm_id import Mm, MmIds
from .models import MODELS, Model, make_model

EBUSY = -16


class Accounting:
    """Accounting models side by side on one stream of rmap calls.

    `models` are names from MODELS; `driver` is one of them, by default the most permissive (the last in MODELS).

    >>> acct = Accounting(["precise", "total-mapped-pages"])
    >>> mm, folio = acct.mm_ids.alloc(), acct.folio(9, Kind.ANON)
    >>> acct.get(folio, 1)
    >>> acct.add_new_anon_rmap(folio, mm)
    >>> [model.stats.nr[2] for model in acct.models.values()]
    [512, 512]
    """

    def __init__(self, models: Iterable[str] = tuple(MODELS), *, driver: str | None = None, rules: Rules | None = None):
        self.rules = rules or Rules()
        wanted = list(models)
        self.models: dict[str, Model] = {name: make_model(name, self.rules) for name in wanted}
        self.driver = self.models[driver or max(wanted, key=list(MODELS).index)]
        self.mm_ids = MmIds(self.rules.mm_id_max)
        self.warnings: list[str] = []

    # ---- folios, references, pins

    def folio(
        self, order: int, kind: Kind, pfn: int = 0, *, flags: Flags = NO_FLAGS, fresh: bool | None = None
    ) -> Folio:
        """A new folio with counters of every model.

        The page cache holds one reference per page (hugetlb: one); an anonymous folio starts without any, its
        allocation's reference being the first one of the caller's get(). `fresh=False` makes an anonymous folio that
        was mapped before (swapped in, the target of a migration).
        """
        starts_fresh = kind in (Kind.ANON, Kind.HUGETLB_ANON) if fresh is None else fresh
        if kind in (Kind.ANON, Kind.SHMEM, Kind.KSM):
            flags |= Flags.SWAPBACKED
        folio = Folio(order, kind, pfn, flags=flags, fresh=starts_fresh)
        if kind.is_page_cache:
            folio.refs = 1 if kind.is_hugetlb else folio.nr_pages
        self._each(folio, lambda model: model.adopt(folio))
        return folio

    def _each(self, folio: Folio, action: Callable[[Model], None]) -> None:
        for model in self.models.values():
            try:
                action(model)
            except Rejected as refusal:
                if model is self.driver:
                    raise
                Model.adopt(model, folio)
                model.of(folio).refused = refusal.problem

    def get(self, folio: Folio, n: int) -> None:
        """folio_ref_add(n); raises CounterOverflow at the hard limit unless literal."""
        limit = self.rules.limits.refcount
        if not self.rules.literal and self.driver.refcount(folio) + n > limit:
            raise CounterOverflow(self.driver.name, f"{n} more references of {folio!r} would pass the limit of {limit}")
        folio.refs += n

    def put(self, folio: Folio, n: int) -> None:
        """folio_put_refs(n) without freeing: the owner decides when an unreferenced folio goes (free)."""
        if folio.refs < n:
            raise Rejected(self.driver.name, f"{n} references of {folio!r} to drop, only {folio.refs} are held")
        folio.refs -= n

    def pin(self, folio: Folio, mm: Mm, n: int) -> None:
        """n DMA pins (FOLL_PIN) through mm, which is marked MMF_HAS_PINNED."""
        mm.has_pinned = True
        folio.pins += n

    def unpin(self, folio: Folio, n: int) -> None:
        """Undo n pins; mm keeps its mark."""
        if folio.pins < n:
            raise Rejected(self.driver.name, f"{n} pins of {folio!r} to drop, only {folio.pins} are held")
        folio.pins -= n

    def set_swapcache(self, folio: Folio, present: bool) -> None:
        """The folio enters (one reference per page) or leaves the swap cache."""
        if present == folio.in_swapcache:
            return
        folio.flags ^= Flags.SWAPCACHE
        folio.refs += folio.nr_pages if present else -folio.nr_pages

    def free(self, folio: Folio) -> None:
        """Free the folio: every model's counters must be at their free-time values; raises FreeError."""
        cache = (1 if folio.kind.is_hugetlb else folio.nr_pages) if folio.kind.is_page_cache else 0
        for field, value, expected in (("references", folio.refs, cache), ("_pincount", folio.pins, 0)):
            if value != expected:
                raise FreeError(self.driver.name, field, value, expected)
        for model in self.live(folio):
            model.check_free(folio)
            model.unqueue_deferred_split(folio)
            if folio.is_anon and not folio.kind.is_hugetlb and not folio.fresh:
                model.count_mthp(model.stats.mthp_nr_anon, folio, -1)

    def split_folio(self, folio: Folio, new_order: int) -> list[Folio]:
        """Split a folio that nothing maps (its entries were replaced by migration entries) into smaller ones.

        The parts keep kind and flags and start with no mapping, no exclusive mark and the references of their cache;
        the mTHP statistics and the queue follow. Raises Rejected while anything still maps or references it.
        """
        expected = self.driver.expected_ref_count(folio)
        if self.driver.mapcount(folio) or folio.pins or folio.refs != expected or not 0 <= new_order < folio.order:
            raise Rejected(self.driver.name, f"{folio!r} cannot be split to order {new_order} while mapped or in use")
        cached = folio.in_swapcache
        parts = []
        for pfn in range(folio.pfn, folio.pfn + folio.nr_pages, 1 << new_order):
            part = self.folio(new_order, folio.kind, pfn, flags=folio.flags & ~Flags.SWAPCACHE, fresh=False)
            self.set_swapcache(part, cached)
            parts.append(part)
        for model in self.live(folio):
            model.unqueue_deferred_split(folio)
            if folio.is_anon:
                model.count_mthp(model.stats.mthp_nr_anon, folio, -1)
                model.count_mthp(model.stats.mthp_nr_anon, parts[0], len(parts))
        return parts

    def live(self, folio: Folio) -> list[Model]:
        """The models that still count this folio."""
        return [model for model in self.models.values() if model.of(folio).refused is None]

    def _admit(self, folio: Folio, check: Callable[[Model], None]) -> list[Model]:
        """Ask every model before anything moves: the driver's refusal raises, another model leaves the folio."""
        check(self.driver)
        admitted = []
        for model in self.live(folio):
            try:
                check(model)
                admitted.append(model)
            except Rejected as refusal:
                model.refuse(folio, refusal.problem)
        return admitted

    # ---- additions

    def add_new_anon_rmap(self, folio: Folio, mm: Mm, *, exclusive: bool = True) -> None:
        """folio_add_new_anon_rmap (hugetlb: hugetlb_add_new_anon_rmap): the whole folio's first mapping.

        The level follows from the order and the model; the caller writes that many entries and holds as many
        references (new_mappings). Raises Rejected for a folio that is not fresh and anonymous.
        """
        if not folio.fresh or not folio.is_anon:
            raise Rejected(self.driver.name, f"folio_add_new_anon_rmap of {folio!r}, which is not a new anon folio")
        if folio.kind.is_hugetlb:
            for model in self.live(folio):
                model.add_hugetlb(folio)
        else:
            for model in self._admit(folio, lambda model: model.check_new(folio)):
                model.add_new(folio, mm)
        folio.fresh = False
        if exclusive:
            level = Level.PUD if folio.kind.is_hugetlb else self.driver.new_level(folio)
            self.set_exclusive(folio, level, 0, folio.nr_pages)

    def new_mappings(self, folio: Folio) -> int:
        """Page-table entries (and references) a first mapping by add_new_anon_rmap stands for."""
        if folio.kind.is_hugetlb:
            return 1
        return max(folio.nr_pages >> self.rules.levels.order(self.driver.new_level(folio)), 1)

    def add_anon_rmap(
        self,
        folio: Folio,
        mm: Mm,
        level: Level,
        first: int,
        n: int,
        *,
        exclusive: bool = False,
        locked: bool = False,
        exempt: bool = False,
    ) -> None:
        """folio_add_anon_rmap_ptes/_pmd (T: PUD too): n pages from `first` on, mapped at `level` by mm.

        `exclusive` is RMAP_EXCLUSIVE, `locked` the VMA's VM_LOCKED, `exempt` marks mappings that must not be rejected
        early (a PMD split, the return from migration, swap-in). Raises Rejected and changes nothing if refused.
        """
        if not folio.is_anon or folio.fresh:
            raise Rejected(self.driver.name, f"folio_add_anon_rmap of {folio!r}, which is not anonymous yet")
        for model in self._admit(folio, lambda model: model.check_add(folio, level, first, n, exempt)):
            model.add(folio, level, first, n, mm)
        if exclusive:
            self.set_exclusive(folio, level, first, n)
        self._warn(folio, level, first, n)
        self._mlock(folio, n, locked)

    def add_file_rmap(
        self, folio: Folio, mm: Mm, level: Level, first: int, n: int, *, locked: bool = False, exempt: bool = False
    ) -> None:
        """folio_add_file_rmap_ptes/_pmd/_pud, for page cache and shmem. Raises Rejected and changes nothing."""
        if folio.is_anon:
            raise Rejected(self.driver.name, f"folio_add_file_rmap of {folio!r}, which is anonymous")
        for model in self._admit(folio, lambda model: model.check_add(folio, level, first, n, exempt)):
            model.add(folio, level, first, n, mm)
        self._mlock(folio, n, locked)

    def _mlock(self, folio: Folio, n: int, locked: bool) -> None:
        if locked and n == folio.nr_pages:
            for model in self.live(folio):
                model.stats.mlock += 1

    def _warn(self, folio: Folio, level: Level, first: int, n: int) -> None:
        for model in self.live(folio):
            warning = model.exclusive_warning(folio, level, first, n)
            if warning is not None:
                self.warnings.append(warning)

    # ---- removal

    def remove_rmap(self, folio: Folio, mm: Mm, level: Level, first: int, n: int, *, locked: bool = False) -> None:
        """folio_remove_rmap_ptes/_pmd/_pud; may queue a partially mapped anonymous folio for a deferred split."""
        for model in self._admit(folio, lambda model: model.check_remove(folio, level, first, n)):
            model.remove(folio, level, first, n, mm)
            model.stats.munlock += locked

    # ---- fork

    def may_map(self, folio: Folio, level: Level) -> int:
        """How many entries of that level fork or a file fault may still add: 0 means -ENOMEM or VM_FAULT_OOM.

        The soft limit of the overflow proposal, read without a lock; a fault-around maps no more than this. Literal
        runs never answer less than 2**31 - 1, as posted nothing checks.
        """
        return (1 << 31) - 1 if self.rules.literal else self.driver.soft_room(folio, level)

    def dup_file_rmap(self, folio: Folio, dst: Mm, level: Level, first: int, n: int) -> None:
        """Duplicate mappings of a page-cache folio into dst; no statistics move.

        This is folio_dup_file_rmap_ptes, and folio_dup_file_rmap_pmd as it was meant: mainline's inline for the PMD
        passes the PTE level with 512 pages, a slip without an in-tree caller (which is why fork here never hits it).
        """
        for model in self._admit(folio, lambda model: model.check_add(folio, level, first, n, False)):
            model.dup(folio, level, first, n, dst)

    def dup_file_rmap_pmd(self, folio: Folio, dst: Mm, first: int) -> None:
        """folio_dup_file_rmap_pmd; literal runs count the PMD as that many PTEs, as mainline and the series do."""
        level = Level.PTE if self.rules.literal else Level.PMD
        self.dup_file_rmap(folio, dst, level, first, self.rules.levels.size(Level.PMD))

    def try_dup_anon_rmap(self, folio: Folio, dst: Mm, src: Mm, level: Level, first: int, n: int) -> int:
        """folio_try_dup_anon_rmap_ptes/_pmd: 0, or -EBUSY if a page is exclusive and may be pinned (or at the limit).

        On success the exclusive marks are gone and both copies must be read-only; on -EBUSY nothing changed.
        """
        if self._pinned_exclusive(folio, src, level, first, n):
            return EBUSY
        try:
            models = self._admit(folio, lambda model: model.check_add(folio, level, first, n, False))
        except CounterOverflow:
            return EBUSY
        self.clear_exclusive(folio, level, first, n)
        for model in models:
            model.dup(folio, level, first, n, dst)
        return 0

    def _pinned_exclusive(self, folio: Folio, src: Mm, level: Level, first: int, n: int) -> bool:
        return self.needs_cow_for_dma(folio, src) and self.any_exclusive(folio, level, first, n)

    def needs_cow_for_dma(self, folio: Folio, src: Mm) -> bool:
        """folio_needs_cow_for_dma: src ever pinned pages and the folio may be pinned (never if device-private)."""
        return src.has_pinned and not folio.is_device_private and self.driver.maybe_dma_pinned(folio)

    # ---- exclusive marks

    def set_exclusive(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """SetPageAnonExclusive for each entry of the range, on the first page it maps."""
        self._fill_exclusive(folio, level, first, n, 1)

    def clear_exclusive(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """ClearPageAnonExclusive for each entry of the range."""
        self._fill_exclusive(folio, level, first, n, 0)

    def _fill_exclusive(self, folio: Folio, level: Level, first: int, n: int, value: int) -> None:
        if level == Level.PTE:
            folio.exclusive.fill(first, n, value)
            return
        for page in range(first, first + n, self.rules.levels.size(level)):
            folio.exclusive.fill(page, 1, value)

    def any_exclusive(self, folio: Folio, level: Level, first: int, n: int) -> bool:
        """Whether an entry of the range has its AnonExclusive mark set."""
        if level == Level.PTE:
            return folio.exclusive.any(first, n)
        return any(folio.exclusive[page] for page in range(first, first + n, self.rules.levels.size(level)))

    def try_share_anon_rmap(self, folio: Folio, page: int) -> int:
        """folio_try_share_anon_rmap_pte/_pmd: drop the exclusive mark of a page whose entry was cleared.

        0, or -EBUSY if the folio may be pinned. For hugetlb, and for a PMD, the mark is the first page's.
        """
        if not folio.exclusive[page]:
            raise Rejected(self.driver.name, f"page {page} of {folio!r} is not marked exclusive")
        if not folio.is_device_private and self.driver.maybe_dma_pinned(folio):
            return EBUSY
        folio.exclusive.fill(page, 1, 0)
        return 0

    # ---- hugetlb

    def hugetlb_add_rmap(self, folio: Folio, *, exclusive: bool = False) -> None:
        """hugetlb_add_anon_rmap and hugetlb_add_file_rmap: one more mapping of a hugetlb folio."""
        self._require_hugetlb(folio)
        if folio.is_anon and folio.fresh:
            raise Rejected(self.driver.name, f"hugetlb_add_anon_rmap of {folio!r}, which is not anonymous yet")
        for model in self.live(folio):
            model.add_hugetlb(folio)
        if exclusive:
            folio.exclusive.fill(0, 1, 1)
        if folio.is_anon:
            self._warn(folio, Level.PTE, 0, 1)

    def hugetlb_try_dup_anon_rmap(self, folio: Folio, src: Mm) -> int:
        """hugetlb_try_dup_anon_rmap: 0, or -EBUSY if exclusive and maybe pinned."""
        self._require_hugetlb(folio)
        if self._pinned_exclusive(folio, src, Level.PTE, 0, 1):
            return EBUSY
        folio.exclusive.fill(0, 1, 0)
        for model in self.live(folio):
            model.add_hugetlb(folio)
        return 0

    def hugetlb_remove_rmap(self, folio: Folio) -> None:
        """hugetlb_remove_rmap: one mapping less."""
        self._require_hugetlb(folio)
        if self.driver.mapcount(folio) < 1:
            raise Rejected(self.driver.name, f"{folio!r} has no mapping to remove")
        for model in self.live(folio):
            model.remove_hugetlb(folio)

    def _require_hugetlb(self, folio: Folio) -> None:
        if not folio.kind.is_hugetlb:
            raise Rejected(self.driver.name, f"a hugetlb rmap function was called for {folio!r}")

    # ---- copy on write

    def wp_can_reuse_anon_folio(self, folio: Folio, *, can_free_swap: bool = True) -> bool:
        """wp_can_reuse_anon_folio: may a write fault keep a PTE-mapped page that is not marked exclusive?

        Large folios need more than one mapping (a lone page is copied and the rest freed), none shared, and every
        reference explained by a mapping; small ones need a single reference. The swap cache is dropped on the way if
        `can_free_swap`, even when the answer becomes no. KSM pages are never reused. The kernel first drains the LRU
        batches that may hold a reference to a small folio; nothing here holds one.
        """
        model = self.driver
        if folio.kind is Kind.KSM or not folio.is_anon:
            return False
        if folio.is_large and (model.mapcount(folio) <= 1 or model.maybe_mapped_shared(folio)):
            return False
        if not folio.is_large and model.refcount(folio) > 1 + folio.in_swapcache:
            return False
        if folio.in_swapcache and can_free_swap:
            self.set_swapcache(folio, False)
        return model.refcount(folio) == (model.mapcount(folio) if folio.is_large else 1)

    def wp_can_reuse_pmd(self, folio: Folio, *, can_free_swap: bool = True) -> bool:
        """do_huge_pmd_wp_page: a PMD that is not marked exclusive is reused if it holds the only reference."""
        if folio.in_swapcache and can_free_swap and self.driver.refcount(folio) <= 1 + folio.nr_pages:
            self.set_swapcache(folio, False)
        return self.driver.refcount(folio) == 1

    def wp_can_reuse_hugetlb(self, folio: Folio) -> bool:
        """hugetlb_wp: an anonymous hugetlb page mapped once is reused."""
        return folio.is_anon and self.driver.mapcount(folio) == 1

    # ---- deferred split

    def deferred_split_folio(self, folio: Folio, *, partially_mapped: bool) -> None:
        """deferred_split_folio, in every model: after a PMD fault (not partially mapped) or a reclaim-time scan."""
        for model in self.live(folio):
            model.deferred_split_folio(folio, partially_mapped=partially_mapped)

"""Bulk rmap operations: runs of page-table entries mapped, unmapped or forked, all three models counted in one pass.

`BulkFrames` takes folios and their counters over from an `Accounting`, works on arrays, and gives everything back with
`flush`. What it computes is what the entry-by-entry calls compute; what it does not know (pins, swap entries, limits)
it refuses with a sentence before that entry, and the caller goes on with the calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arch.errors import InputError
from ..mmu.kernels.host import host_address
from . import bulk_kernels as kernels
from .calls import Accounting
from .errors import Rejected
from .folio import Counters, Folio
from .mm_id import Mm
from .models.precise import ENTIRELY_MAPPED
from .overflow import INT_MAX
from .stats import Nr

U64 = np.uint64
MODELS = ("precise", "no-page-mapcount", "total-mapped-pages")
X86_FORM = (0x000F_FFFF_FFFF_F000, 12)
_WORDS = kernels.RECORD // 4


def _index(field: np.uint64) -> int:
    return int(field) // 4


class BulkFrames:
    """The frames from `first_pfn` on and the folios in them, as arrays for the bulk operations.

    `form` is the address mask of a page-table entry and the page shift. The accounting must run all three models on a
    64-bit machine, without literal slips, and all must count every folio; InputError otherwise.
    """

    def __init__(
        self, accounting: Accounting, folios: Iterable[Folio], *, first_pfn: int, nr_frames: int, form: tuple[int, int]
    ) -> None:
        if tuple(accounting.models) != MODELS or accounting.rules.bits != 64 or accounting.rules.literal:
            raise InputError(f"bulk operations run the models {', '.join(MODELS)}, 64 bits, as meant", field="models")
        self.accounting, self.folios, self.first_pfn = accounting, list(folios), first_pfn
        self.form = U64(form[0]), U64(form[1]), U64(first_pfn)
        self.records = np.zeros((nr_frames, _WORDS), np.uint32)
        self.pages = np.zeros(nr_frames, np.uint32)
        self.stats = np.zeros((3, 2), np.int64)
        self.by_head: dict[int, Folio] = {}
        for folio in self.folios:
            self._take(folio)

    def _take(self, folio: Folio) -> None:
        head = folio.pfn - self.first_pfn
        if not 0 <= head <= len(self.records) - folio.nr_pages or folio.kind.is_hugetlb:
            raise InputError("bulk operations take no hugetlb and no frame outside their range", value=folio.pfn)
        if any(folio.counters[name].refused is not None for name in MODELS) or folio.pins or folio.fresh:
            raise InputError("bulk operations take no pinned or new folio and none that a model left", value=folio.pfn)
        if folio.counters["total-mapped-pages"].total_mapped_pages > INT_MAX:
            raise InputError("bulk operations count up to 2^31 mapped pages a folio", value=folio.pfn)
        self.by_head[head] = folio
        precise, none, total = (folio.counters[name] for name in MODELS)
        quiet = folio.is_device_private or folio.order <= 1 or folio.in_swapcache
        record = self.records[head]
        meta = folio.order | int(kernels.KNOWN)
        meta |= (int(kernels.ANON) if folio.is_anon else 0) | (int(kernels.QUIET) if quiet else 0)
        self.records[head + 1 : head + folio.nr_pages, 0] = int(kernels.TAIL) | head
        partial = precise.partially_mapped | none.partially_mapped << 1 | total.partially_mapped << 2
        values = {
            kernels.META: meta, kernels.REFS: folio.refs, kernels.MAPCOUNT: precise.mapcount + 1,
            kernels.PARTIAL: partial,
        }  # fmt: skip
        if folio.is_large:
            values |= {
                kernels.MAPCOUNT: precise.large_mapcount + 1, kernels.NR_MAPPED: precise.nr_pages_mapped,
                kernels.ENTIRE: precise.entire_mapcount + 1, kernels.TOTAL: total.total_mapped_pages,
                kernels.ID0: precise.mm_id[0], kernels.ID1: precise.mm_id[1], kernels.SHARED: precise.shared,
                kernels.COUNT0: precise.mm_id_mapcount[0] + 1, kernels.COUNT1: precise.mm_id_mapcount[1] + 1,
            }  # fmt: skip
            assert precise.page_mapcount is not None
            for first, n, count in precise.page_mapcount.runs():
                self.pages[head + first : head + first + n] = count + 1
            for first, n, mark in folio.exclusive.runs():
                self.pages[head + first : head + first + n] |= np.uint32(mark << 31)
        else:
            values[kernels.EXCLUSIVE] = folio.exclusive[0]
        for field, value in values.items():
            record[_index(field)] = value

    def _where(self) -> tuple[np.uint64, NDArray[np.uint32]]:
        return U64(host_address(self.records)), self.pages

    @property
    def _limit(self) -> np.uint64:
        return U64(self.accounting.rules.limits.mapcount)

    def fork(
        self, src: NDArray[Any], dst: NDArray[Any], src_mm: Mm, dst_mm: Mm, *, protect: Sequence[int],
        clear_child: int = 0, batched: bool = True,
    ) -> None:  # fmt: skip
        """copy_present_ptes for a run of entries: both sides are write-protected, `clear_child` goes in dst.

        `protect` is arch.linux.Linux.wrprotect. Every page loses its exclusive mark, gains a
        mapping by `dst_mm` and a reference. Rejected: an entry that is neither absent nor one of these frames, or a
        source that ever pinned pages.
        """
        if src_mm.has_pinned:
            raise Rejected(self.accounting.driver.name, "bulk fork of an address space that pinned pages")
        masks = tuple(map(U64, protect)), U64(clear_child)
        done = kernels.fork_range(src, dst, self.form, *self._where(), *masks, U64(dst_mm.id), batched, self._limit)
        self._complete(done, len(src), "fork")

    def map(self, ptes: NDArray[Any], pfns: NDArray[Any], mm: Mm, *, prot: int, batched: bool = True) -> None:
        """Install `pfns` with the entry bits `prot` in absent entries, as folio_add_anon/file_rmap_ptes counts them.

        Rejected: an entry in use, or a frame that is none of these.
        """
        done = kernels.map_range(
            ptes, pfns, U64(prot), self.form, *self._where(), U64(mm.id), batched, self._limit, self.stats
        )
        self._complete(done, len(ptes), "map")

    def unmap(self, ptes: NDArray[Any], mm: Mm, *, batched: bool = True) -> None:
        """zap_present_ptes for a run of entries: cleared, uncounted, references dropped; absent entries are left.

        Rejected: an entry that maps none of these frames, or that nothing counted.
        """
        partial = np.empty(3 * len(ptes), np.uint64)
        done, events = kernels.unmap_range(ptes, self.form, *self._where(), U64(mm.id), batched, self.stats, partial)
        for event in partial[:events].tolist():
            model = self.accounting.models[MODELS[(event & 7).bit_length() - 1]]
            model.deferred_split_folio(self.by_head[event >> 3], partially_mapped=True)
        self._complete(done, len(ptes), "unmap")

    def _complete(self, done: int, wanted: int, verb: str) -> None:
        if done != wanted:
            text = f"bulk {verb} stopped before entry {done} of {wanted}, which it does not account for"
            raise Rejected(self.accounting.driver.name, text)

    def flush(self) -> None:
        """Give counters, references, marks and statistics back to the folios and models."""
        for head, folio in self.by_head.items():
            self._give(head, folio)
        for row, name in zip(self.stats.tolist(), MODELS, strict=True):
            stats = self.accounting.models[name].stats
            stats.nr[Nr.ANON_MAPPED] += row[0]
            stats.nr[Nr.FILE_MAPPED] += row[1]
        self.stats[:] = 0

    def _give(self, head: int, folio: Folio) -> None:
        record = self.records[head].tolist()

        def value(field: np.uint64) -> int:
            return int(record[_index(field)])

        folio.refs = value(kernels.REFS)
        for number, name in enumerate(MODELS):
            counters = folio.counters[name]
            if folio.is_large:
                counters.large_mapcount = value(kernels.MAPCOUNT) - 1
                counters.mm_id = [value(kernels.ID0), value(kernels.ID1)]
                counters.mm_id_mapcount = [value(kernels.COUNT0) - 1, value(kernels.COUNT1) - 1]
                counters.shared = bool(value(kernels.SHARED))
            else:
                counters.mapcount = value(kernels.MAPCOUNT) - 1
            mapped = self._mapped_pages(number, folio, value(kernels.MAPCOUNT), value(kernels.NR_MAPPED))
            counters.nr[Nr.ANON_MAPPED if folio.is_anon else Nr.FILE_MAPPED] = mapped
        if not folio.is_large:
            folio.exclusive.fill(0, 1, value(kernels.EXCLUSIVE))
            return
        folio.counters["precise"].nr_pages_mapped = value(kernels.NR_MAPPED)
        folio.counters["total-mapped-pages"].total_mapped_pages = value(kernels.TOTAL)
        self._give_pages(head, folio, folio.counters["precise"])

    @staticmethod
    def _mapped_pages(model: int, folio: Folio, mapcount: int, nr_mapped: int) -> int:
        """The folio's share of NR_*_MAPPED: pages with a mapping in the precise model, else all or none."""
        if model == 0 and folio.is_large and nr_mapped < ENTIRELY_MAPPED:
            return nr_mapped
        return folio.nr_pages if mapcount else 0

    def _give_pages(self, head: int, folio: Folio, precise: Counters) -> None:
        words = self.pages[head : head + folio.nr_pages]
        assert precise.page_mapcount is not None
        for first, n, word in _runs(words):
            precise.page_mapcount.fill(first, n, (word & int(kernels.PAGE_COUNT)) - 1)
            folio.exclusive.fill(first, n, word >> 31)


def _runs(words: NDArray[np.uint32]) -> Iterable[tuple[int, int, int]]:
    """Runs of equal words as (first, length, word)."""
    edges: Sequence[int] = [0, *(np.flatnonzero(words[1:] != words[:-1]) + 1).tolist(), len(words)]
    for first, end in itertools.pairwise(edges):
        yield first, end - first, int(words[first])


__all__ = ["MODELS", "X86_FORM", "BulkFrames"]

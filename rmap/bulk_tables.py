"""Bulk rmap operations on the page tables of processes: the fused kernels run on the tables in place.

Every editor's other observers hear of each entry that changed; its rmap observer does not, since the kernel counted
for it. While a `BulkTables` is open, the counters of its folios stand in arrays: nothing else may count them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..arch.errors import InputError
from ..arch.linux import Linux, LinuxFlags
from ..mmu.editor import EntryChange, Reason, Slot
from .bulk import BulkFrames
from .folio import Folio
from .levels import Level
from .space.process import Process
from .space.system import System

_F = LinuxFlags


@dataclass(frozen=True)
class Masks:
    """What the kernels know of one kind of PTE, read back from Linux's own entries.

    `form` is (address mask, page shift), `young` the accessed bit.
    """

    form: tuple[int, int]
    young: int

    @classmethod
    def of(cls, linux: Linux) -> Masks:
        """The masks of a kernel's PTEs; InputError where the address has parts in two places (52 bits on arm64).

        >>> from ..arch.linux import Paging, linux_for
        >>> masks = Masks.of(linux_for("x86_64", "7.3", Paging(12, (4, 3, 2, 1))))
        >>> [hex(mask) for mask in (*masks.form, masks.young)]
        ['0x3ffffffff000', '0xc', '0x20']
        """
        level, shift = linux.paging.levels[-1], linux.paging.page_shift
        plain = linux.page(level, 0, _F.USER)
        address = linux.page(level, (1 << linux.physmem_bits - shift) - 1, _F.USER) ^ plain
        if address != (1 << linux.physmem_bits) - (1 << shift):
            raise InputError("bulk operations take page addresses of one field only", field="address", value=address)
        return cls((address, shift), linux.page(level, 0, _F.USER | _F.YOUNG) ^ plain)


class BulkTables:
    """The PTEs of a system's processes, mapped, unmapped and forked in bulk; a context manager that gives all back.

    InputError where a folio or an entry is not for bulk (BulkFrames); Rejected where a run stops half way: what was
    done until then is counted, and observers were told.
    """

    def __init__(self, system: System, folios: Iterable[Folio] | None = None) -> None:
        self.system = system
        self.folios = [*(system.folios.values() if folios is None else folios)]
        process = next(iter(system.processes.values()))
        self.masks = Masks.of(process.linux)
        first = min((folio.pfn for folio in self.folios), default=0)
        end = max((folio.pfn + folio.nr_pages for folio in self.folios), default=0)
        self.bulk = BulkFrames(system.acct, self.folios, first_pfn=first, nr_frames=end - first, form=self.masks.form)

    def __enter__(self) -> BulkTables:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Counters go back to the folios, and those that nothing references any more are freed."""
        self.bulk.flush()
        for folio in self.folios:
            if not folio.refs:
                self.system.unreferenced(folio)

    def map(self, process: Process, va: int, folio: Folio, page: int, n: int, flags: LinuxFlags) -> None:
        """Map n pages of a folio by PTEs from `va` on, none of them contiguous."""
        prot = process.linux.page(process.linux.paging.levels[-1], 0, flags | _F.USER)
        pfns = np.arange(folio.pfn + page, folio.pfn + page + n, dtype=np.uint64)
        done = 0
        for slot, words in self._tables(process, va, va + n * process.page_size, make=True):
            with _Told(process, slot, words, Reason.MAP):
                self.bulk.map(words, pfns[done : done + len(words)], process.mm, prot=prot)
            done += len(words)

    def unmap(self, process: Process, start: int, end: int) -> None:
        """Unmap every page of a range; tables stay."""
        process.unfold(start, end)
        for slot, words in self._tables(process, start, end):
            with _Told(process, slot, words, Reason.UNMAP):
                self.bulk.unmap(words, process.mm)

    def fork(self, src: Process, dst: Process, start: int, end: int) -> None:
        """Copy the PTEs of a range to the same addresses of `dst`, whose entries there are empty."""
        src.unfold(start, end)
        for slot, words in list(self._tables(src, start, end)):
            stop = slot.va + len(words) * src.page_size
            for other, copies in self._tables(dst, slot.va, stop, make=True):
                with _Told(src, slot, words, Reason.FORK), _Told(dst, other, copies, Reason.FORK):
                    how, young = src.linux.wrprotect, self.masks.young
                    self.bulk.fork(words, copies, src.mm, dst.mm, protect=how, clear_child=young)

    def _tables(
        self, process: Process, start: int, end: int, *, make: bool = False
    ) -> Iterator[tuple[Slot, NDArray[np.uint64]]]:
        """The parts of a range by page table: the first entry, and the entries themselves, to write in place."""
        editor, size = process.editor, self.system.levels.size(Level.PMD) * process.page_size
        while start < end:
            stop = min(start // size * size + size, end)
            slot = editor.ensure(start) if make else editor.find(start, 0)
            if slot is not None:
                n = (stop - start) // process.page_size
                yield slot, np.frombuffer(self.system.memory.window(slot.pa, 8 * n), np.uint64)
            elif editor.read(editor.lookup(start)):
                raise InputError("a larger leaf is in the way of bulk operations", field="va", value=f"{start:#018x}")
            start = stop


class _Told:
    """Tells a process's other observers which entries of a table changed inside, whatever ended it."""

    def __init__(self, process: Process, slot: Slot, words: NDArray[np.uint64], reason: Reason) -> None:
        self.process, self.slot, self.words, self.reason = process, slot, words, reason

    def __enter__(self) -> None:
        self.before = self.words.copy()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        editor, slot = self.process.editor, self.slot
        if len(editor.observers) == 1:
            return
        changed = np.flatnonzero(self.before != self.words).tolist()
        serial = editor.reserve(len(changed))
        changes = [
            EntryChange(
                editor.space,
                slot.va + k * self.process.page_size,
                slot.level,
                int(self.before[k]),
                int(self.words[k]),
                self.reason,
                slot.pa + 8 * k,
                serial + nth,
            )
            for nth, k in enumerate(changed)
        ]
        editor.announce(changes, self.process.observer)

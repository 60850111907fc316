"""Physical memory as the kernels see it: one NamedTuple of scalars and host addresses (see `access`).

- `FlatView`: one bank that starts at address 0; a bounds check and an add. `BankView`: one bank that starts elsewhere.
- `ChunkView`: any number of banks anywhere in the physical address space, file-backed or not, at any alignment, in
  place: a directory of chunks of 2 MiB or more. A chunk that one bank covers holds the distance between physical and
  host address; a chunk that several banks share, or that a bank covers in part, is searched.
- `WordsView`: listed words of many small cases at once, as in the vector files; what is not listed reads 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...arch.errors import InputError
from ..memory import Bank, PhysicalMemory
from .host import host_address

U64 = np.uint64
CHUNK_SHIFT = 21
DIRECTORY_BITS = 20  # at most 2^20 chunks: beyond 2 TiB of span the chunks grow instead
SHARED = 1 << 63  # marks a directory word that is no distance: added to an address it exceeds any host address
BANK_BITS = 28

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
_0, _7 = U64(0), U64(7)


class FlatFields(NamedTuple):
    """One run of memory from address 0: `delta` is host - pa, `limit` the addresses below which a word fits."""

    delta: U64
    limit: U64
    aligned: U64  # 1 where physical and host addresses agree modulo 8


class BankFields(NamedTuple):
    """One run of memory from physical `start`: `delta` is host - pa, `limit` the offsets below which a word fits."""

    delta: U64
    start: U64
    limit: U64
    aligned: U64  # 1 where physical and host addresses agree modulo 8


class ChunkFields(NamedTuple):
    """Sparse memory: `directory[(pa >> shift) - first]`, and the banks' bounds and distances for shared chunks.

    `directory`, `starts`, `ends` and `deltas` are host addresses of arrays of words; `deltas` are host - pa. A word of
    the directory is host - pa or, where that is not the same throughout, `SHARED | first bank | end bank << 28`.
    """

    directory: U64
    chunks: U64
    shift: U64
    first: U64
    starts: U64
    ends: U64
    deltas: U64
    main_start: U64  # the largest bank, asked first
    main_limit: U64
    main_delta: U64
    aligned: U64  # 1 where every bank's physical and host addresses agree modulo 8


class WordsFields(NamedTuple):
    """Case i owns words `off[i]` to `off[i + 1]` of `pa` (ascending) and `val`; all are host addresses of arrays."""

    off: U64
    pa: U64
    val: U64


# Arrays inside a tuple would be reference counted at every helper's call, in the middle of the loops. The tuples
# therefore hold addresses only, and these classes keep alive what the addresses point at.


class FlatView(FlatFields):
    """A view of one bank that starts at address 0."""

    keep: Sequence[Words | Bytes]


class BankView(BankFields):
    """A view of one bank."""

    keep: Sequence[Words | Bytes]


class ChunkView(ChunkFields):
    """A view of any number of banks."""

    keep: Sequence[Words | Bytes]


class WordsView(WordsFields):
    """A view of many cases' words; `values` are the words as they stand, in the view's order."""

    keep: Sequence[Words]

    @property
    def values(self) -> Words:
        return self.keep[2]


MemoryView = FlatView | BankView | ChunkView
View = MemoryView | WordsView


def _host(bank: Bank) -> Bytes:
    data = np.frombuffer(bank.data, np.uint8)
    if not data.flags.writeable:
        raise InputError("the kernels need writable memory, this bank is read-only", field="bank", value=bank.start)
    return data


def flat_view(memory: PhysicalMemory) -> FlatView | BankView:
    """The view of a memory that consists of one bank; InputError where it has another number.

    >>> ram = PhysicalMemory()
    >>> _ = ram.add_ram(0x8000_0000, 1 << 20)
    >>> view = flat_view(ram)
    >>> type(view).__name__, hex(view.start), int(view.limit)
    ('BankView', '0x80000000', 1048569)
    """
    if len(memory.banks) != 1:
        raise InputError("a flat view needs exactly one bank of memory", field="banks", value=len(memory.banks))
    (bank,) = memory.banks
    data = _host(bank)
    host = host_address(data)
    aligned = (host - bank.start) % 8 == 0
    delta, limit = U64((host - bank.start) % 2**64), U64(max(0, len(data) - 7))
    view: FlatView | BankView = BankView(delta, U64(bank.start), limit, U64(aligned))
    if bank.start == 0:
        view = FlatView(delta, limit, U64(aligned))
    view.keep = [data]
    return view


def chunk_view(memory: PhysicalMemory) -> ChunkView:
    """The view of a memory of any number of banks.

    >>> ram = PhysicalMemory()
    >>> _ = ram.add_ram(0, 4 << 20), ram.add_ram(1 << 51, 4096)
    >>> view = chunk_view(ram)
    >>> int(view.chunks) <= 1 << DIRECTORY_BITS, int(view.shift)
    (True, 32)
    """
    banks = memory.banks
    buffers = [_host(bank) for bank in banks]
    starts = np.array([bank.start for bank in banks], np.uint64)
    ends = np.array([bank.end for bank in banks], np.uint64)
    deltas = np.array([(host_address(b) - a.start) % 2**64 for a, b in zip(banks, buffers, strict=True)], np.uint64)
    shift, first, directory = _directory(banks, deltas)
    at, *bounds = (U64(host_address(table)) for table in (directory, starts, ends, deltas))
    aligned = U64(not np.any(deltas & _7))
    main = int(np.argmax(ends - starts)) if banks else 0
    largest = (starts[main], ends[main] - starts[main], deltas[main]) if banks else (_0, _0, _0)
    limit = U64(max(0, int(largest[1]) - 7))
    head = at, U64(len(directory)), U64(shift), U64(first)
    view = ChunkView(*head, bounds[0], bounds[1], bounds[2], largest[0], limit, largest[2], aligned)
    view.keep = [directory, starts, ends, deltas, *buffers]
    return view


def _directory(banks: Sequence[Bank], deltas: Words) -> tuple[int, int, Words]:
    if not banks:
        return CHUNK_SHIFT, 0, np.full(1, SHARED, np.uint64)
    low, high = banks[0].start, banks[-1].end
    shift = CHUNK_SHIFT
    while (high - 1 >> shift) - (low >> shift) >= 1 << DIRECTORY_BITS:
        shift += 1
    first = low >> shift
    directory = np.full((high - 1 >> shift) - first + 1, SHARED, np.uint64)
    for i, bank in enumerate(banks):
        begin, end = (bank.start + (1 << shift) - 1 >> shift) - first, (bank.end >> shift) - first
        directory[begin:end] = deltas[i]
        for chunk in {(bank.start >> shift) - first, (bank.end - 1 >> shift) - first}:
            if not begin <= chunk < end:
                known = int(directory[chunk])
                begun = known & (1 << BANK_BITS) - 1 if known != SHARED else i
                directory[chunk] = SHARED | begun | i + 1 << BANK_BITS
    return shift, first, directory


def memory_view(memory: PhysicalMemory) -> MemoryView:
    """The faster view that fits: flat for a single bank, chunks otherwise."""
    return flat_view(memory) if len(memory.banks) == 1 else chunk_view(memory)


def words_view(mem_off: Any, mem_pa: Any, mem_val: Any) -> WordsView:
    """The view of cases in CSR form (offsets, addresses in bytes, values); each case's words are put in order.

    >>> words_view([0, 2], [0x2000, 0x1000], [7, 9]).values
    array([9, 7], dtype=uint64)
    """
    off, pa, val = (np.asarray(x, np.uint64) for x in (mem_off, mem_pa, mem_val))
    sizes: Any = np.diff(off.astype(np.int64))
    case = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((pa, case))
    keep = [np.ascontiguousarray(off), pa[order], val[order]]
    view = WordsView(*(U64(host_address(x)) for x in keep))
    view.keep = keep
    return view

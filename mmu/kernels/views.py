"""Physical memory as the kernels see it: one NamedTuple of scalars and arrays, and `load`/`store` on it.

- `FlatView`: one bank that starts at address 0; a bounds check and an add. `BankView`: one bank that starts elsewhere.
- `ChunkView`: any number of banks anywhere in the physical address space, file-backed or not, at any alignment, in
  place: a directory of chunks of 2 MiB or more. A chunk that one bank covers holds the distance between physical and
  host address; a chunk that several banks share, or that a bank covers in part, is searched.
- `WordsView`: listed words of many small cases at once, as in the vector files; what is not listed reads 0.

`load`, `store`, `change_bits` and `prefetch` are compiled for the view they are given, so a kernel is written once. An
address that no memory backs is never touched: it answers `ok` False. Addresses are physical, in bytes; `load` and
`store` move 8 bytes, little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from ...arch.errors import InputError
from ..memory import Bank, PhysicalMemory
from .jit import intrinsic, overload, types

U64 = np.uint64
CHUNK_SHIFT = 21
DIRECTORY_BITS = 20  # at most 2^20 chunks: beyond 2 TiB of span the chunks grow instead
SHARED = 1 << 63  # marks a directory word that is no distance: added to an address it exceeds any host address
_BANK_BITS = 28

_HOST_LIMIT = U64(1 << 60)
_BANK_SHIFT, _BANK_MASK = U64(_BANK_BITS), U64((1 << _BANK_BITS) - 1)
Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
_0, _1, _3, _7, _8 = U64(0), U64(1), U64(3), U64(7), U64(8)


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


def host_address(data: NDArray[Any]) -> int:
    """Where an array's bytes lie in the host's memory."""
    return int(data.__array_interface__["data"][0])


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
                begun = known & (1 << _BANK_BITS) - 1 if known != SHARED else i
                directory[chunk] = SHARED | begun | i + 1 << _BANK_BITS
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


# Host memory by address. LLVM integers are what numba's uint64 is underneath.


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def peek(typingctx: Any, address: Any) -> Any:
    """The word at a host address, at any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0]), align=1)

    return types.uint64(types.uint64), codegen


@intrinsic
def poke(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a word at a host address, at any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic
def word_pointer(typingctx: Any, address: Any) -> Any:
    """A host address as a pointer to words, for numba.carray."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint64)(types.uint64), codegen


@intrinsic
def peek32(typingctx: Any, address: Any) -> Any:
    """The 32-bit word at a host address, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.zext(builder.load(pointer, align=4), ir.IntType(64))

    return types.uint64(types.uint64), codegen


@intrinsic
def poke32(typingctx: Any, address: Any, value: Any) -> Any:
    """Store the low half of a uint64 at a host address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        builder.store(builder.trunc(args[1], ir.IntType(32)), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic
def atomic_or(typingctx: Any, address: Any, value: Any) -> Any:
    """OR into an aligned word at a host address, atomically; the old value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("or", _pointer(builder, args[0]), args[1], "monotonic")

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def atomic_and(typingctx: Any, address: Any, value: Any) -> Any:
    """AND into an aligned word at a host address, atomically; the old value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("and", _pointer(builder, args[0]), args[1], "monotonic")

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def prefetch_host(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line of a host address, for reading; any address is allowed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@intrinsic
def unlikely(typingctx: Any, condition: Any) -> Any:
    """The condition, which the compiler is told to expect False."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i1 = ir.IntType(1)
        expect = builder.module.declare_intrinsic("llvm.expect.i1", fnty=ir.FunctionType(i1, [i1, i1]))
        return builder.call(expect, [args[0], i1(0)])

    return types.boolean(types.boolean), codegen


# The operations on views. Each is a stub that numba replaces by the form for its argument's type.


def locate(view: View, i: Any, pa: Any) -> Any:
    """(ok, host address) of the word at physical address `pa`; for flat and chunked views."""
    raise NotImplementedError("only compiled code can locate a word")


def load(view: View, i: Any, pa: Any) -> Any:
    """(ok, value) of the word at physical address `pa` of case `i`; value 0 where not ok."""
    raise NotImplementedError("only compiled code can load from a view")


def store(view: View, i: Any, pa: Any, value: Any) -> Any:
    """Write the word at `pa`; True where memory backs it (in a WordsView: where the word is listed)."""
    raise NotImplementedError("only compiled code can store to a view")


def change_bits(view: View, i: Any, pa: Any, set: Any, clear: Any) -> Any:
    """Set and clear bits of the word at `pa`, each atomically where the memory is aligned; True where backed."""
    raise NotImplementedError("only compiled code can store to a view")


def prefetch(view: View, i: Any, pa: Any) -> Any:
    """Ask the host's cache for the word at `pa`; no effect where no memory backs it or on a WordsView."""
    raise NotImplementedError("only compiled code can prefetch from a view")


def _is(view: Any, kind: type) -> bool:
    return isinstance(view, types.BaseNamedTuple) and view.instance_class is kind


@overload(locate)
def _locate(view: Any, i: Any, pa: Any) -> Any:
    if _is(view, FlatView):

        def flat(view: Any, i: Any, pa: Any) -> Any:
            return pa < view.limit, pa + view.delta

        return flat
    if _is(view, BankView):

        def bank(view: Any, i: Any, pa: Any) -> Any:
            return pa - view.start < view.limit, pa + view.delta

        return bank
    if _is(view, ChunkView):

        def chunk(view: Any, i: Any, pa: Any) -> Any:
            ok, host = pa - view.main_start < view.main_limit, pa + view.main_delta
            if unlikely(not ok):
                ok, host = _elsewhere(view, pa)
            return ok, host

        return chunk
    return None


def _listed(view: WordsView, i: Any, pa: Any) -> Any:
    """The host address of case i's word at `pa`, 0 where it is not listed."""
    raise NotImplementedError("only compiled code can search a view")


def _elsewhere(view: ChunkView, pa: Any) -> Any:
    """(ok, host address) of a word outside the largest bank, by the directory."""
    raise NotImplementedError("only compiled code can search a view")


@overload(_elsewhere)
def _by_directory(view: Any, pa: Any) -> Any:
    def find(view: Any, pa: Any) -> Any:
        number = (pa >> view.shift) - view.first
        ok, host = False, _0
        if number < view.chunks:
            entry = peek(view.directory + (number << _3))
            host = pa + entry
            ok = host < _HOST_LIMIT
            if unlikely(not ok):
                ok, host = _search(view, entry, pa)
        return ok, host

    return find


def _search(view: ChunkView, entry: Any, pa: Any) -> Any:
    """(ok, host address) in a chunk that banks share: the last bank that starts at or below `pa`."""
    raise NotImplementedError("only compiled code can search a view")


@overload(_search, inline=False)
def _search_banks(view: Any, entry: Any, pa: Any) -> Any:
    def search(view: Any, entry: Any, pa: Any) -> Any:
        low, high = entry & _BANK_MASK, entry >> _BANK_SHIFT & _BANK_MASK
        while high > low + _1:
            middle = (low + high) >> _1
            if peek(view.starts + (middle << _3)) <= pa:
                low = middle
            else:
                high = middle
        ok, host = False, _0
        if low < high:
            start, end = peek(view.starts + (low << _3)), peek(view.ends + (low << _3))
            ok = start <= pa and pa < end and end - pa >= _8
            host = pa + peek(view.deltas + (low << _3))
        return ok, host

    return search


@overload(_listed)
def _find_listed(view: Any, i: Any, pa: Any) -> Any:
    def find(view: Any, i: Any, pa: Any) -> Any:
        at = view.off + (U64(i) << _3)
        low, high = peek(at), peek(at + _8)
        where = _0
        while low < high:
            middle = (low + high) >> _1
            if peek(view.pa + (middle << _3)) <= pa:
                low = middle + _1
                if peek(view.pa + (middle << _3)) == pa:
                    where = view.val + (middle << _3)
            else:
                high = middle
        return where

    return find


@overload(load)
def _load(view: Any, i: Any, pa: Any) -> Any:
    if _is(view, WordsView):

        def words(view: Any, i: Any, pa: Any) -> Any:
            where = _listed(view, i, pa)
            value = _0
            if where != _0:
                value = peek(where)
            return True, value

        return words

    def host(view: Any, i: Any, pa: Any) -> Any:
        ok, where = locate(view, i, pa)
        value = _0
        if ok:
            value = peek(where)
        return ok, value

    return host


@overload(store)
def _store(view: Any, i: Any, pa: Any, value: Any) -> Any:
    if _is(view, WordsView):

        def words(view: Any, i: Any, pa: Any, value: Any) -> Any:
            where = _listed(view, i, pa)
            if where != _0:
                poke(where, value)
            return where != _0

        return words

    def host(view: Any, i: Any, pa: Any, value: Any) -> Any:
        ok, where = locate(view, i, pa)
        if ok:
            poke(where, value)
        return ok

    return host


@overload(change_bits)
def _change_bits(view: Any, i: Any, pa: Any, set: Any, clear: Any) -> Any:
    if _is(view, WordsView):

        def words(view: Any, i: Any, pa: Any, set: Any, clear: Any) -> Any:
            return store(view, i, pa, (load(view, i, pa)[1] | set) & ~clear)

        return words

    def host(view: Any, i: Any, pa: Any, set: Any, clear: Any) -> Any:
        ok, where = locate(view, i, pa)
        if ok:
            if view.aligned == _0:
                poke(where, (peek(where) | set) & ~clear)
            else:
                if set != _0:
                    atomic_or(where, set)
                if clear != _0:
                    atomic_and(where, ~clear)
        return ok

    return host


@overload(prefetch)
def _prefetch(view: Any, i: Any, pa: Any) -> Any:
    if _is(view, WordsView):

        def words(view: Any, i: Any, pa: Any) -> Any:
            return None

        return words

    def host(view: Any, i: Any, pa: Any) -> Any:
        ok, where = locate(view, i, pa)
        if ok:
            prefetch_host(where)

    return host

"""Reading and writing physical memory through a view, in compiled code.

`load`, `store`, `change_bits` and `prefetch` are compiled for the view they are given, so a kernel is written once. An
address that no memory backs is never touched: it answers `ok` False. Addresses are physical, in bytes; `load` and
`store` move 8 bytes, little-endian.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .host import atomic_and, atomic_or, peek, poke, prefetch_host, unlikely
from .jit import overload, types
from .lanes import EVERY, gather, lanes, pick
from .views import BANK_BITS, BankView, ChunkView, FlatView, View, WordsView

U64 = np.uint64
_HOST_LIMIT = U64(1 << 60)
_BANK_SHIFT, _BANK_MASK = U64(BANK_BITS), U64((1 << BANK_BITS) - 1)
_0, _1, _3, _8, _EVERY = U64(0), U64(1), U64(3), U64(8), U64(EVERY)


def locate(view: View, i: Any, pa: Any) -> Any:
    """(ok, host address) of the word at physical address `pa`; for flat and chunked views.

    For lanes `ok` is a mask, and a lane that it leaves out may be backed all the same.
    """
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
        if pa is lanes:
            return _chunk_lanes

        def chunk(view: Any, i: Any, pa: Any) -> Any:
            ok, host = pa - view.main_start < view.main_limit, pa + view.main_delta
            if unlikely(not ok):
                ok, host = _elsewhere(view, pa)
            return ok, host

        return chunk
    return None


def _chunk_lanes(view: Any, i: Any, pa: Any) -> Any:
    ok, host = pa - view.main_start < view.main_limit, pa + view.main_delta
    if unlikely(ok != _EVERY):  # the directory; lanes in chunks that banks share are not found
        number = (pa >> view.shift) - view.first
        listed = number < view.chunks
        other = pa + gather(view.directory + (number << _3), listed)
        host = pick(ok, host, other)
        ok |= listed & (other < _HOST_LIMIT)
    return ok, host


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

"""The rows of the table: what is timed against what. Each function yields ratios and has compared the results first."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptwalk.mmu.kernels import chunk_view, flat_view, translate_many
from ptwalk.mmu.kernels.batch import empty_words
from ptwalk.mmu.kernels.fast import forms
from ptwalk.mmu.kernels.plans import plan_for
from ptwalk.mmu.kernels.reverse import reverse_map
from ptwalk.mmu.kernels.spaces import emit_tree, merge_tree
from ptwalk.mmu.walk import Access, AccessKind
from ptwalk.rmap import bulk_kernels
from ptwalk.rmap.bulk import X86_FORM, BulkFrames
from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.folio import Kind

from .baseline import plan_words, pointer
from .by_hand import map_by_hand
from .scenes import Scene, scene
from .timing import Ratio, compare, measure

U64 = np.uint64
RW = (U64(2), U64(0), U64(0), U64(0), U64(0))  # pte_wrprotect of entries without a hardware dirty bit to keep
MIB, GIB = 1 << 20, 1 << 30
ACCESS = Access(AccessKind.WRITE, user=True)
FORMS = {"single": "scalar", "pipelined": "pipelined", "cached": "cached", "ordered": "ordered"}  # ours and C's


@dataclass(frozen=True)
class Size:
    """How large everything is: the full run, or the short one that only proves that it works."""

    walks: int
    footprints: tuple[int, ...]
    spaces: tuple[int, ...]
    fork: int
    rounds: int


FULL = Size(1_000_000, (64 * MIB, GIB, 16 * GIB), (8 * GIB, 32 * GIB), GIB, 11)
SHORT = Size(20_000, (64 * MIB,), (64 * MIB,), 16 * MIB, 2)


def same(ours: Any, theirs: Any, what: str) -> None:
    """Stop where two answers differ."""
    if not np.array_equal(ours, theirs):
        raise AssertionError(f"{what}: our answer differs from the baseline's")


def name_of(size: int) -> str:
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


def _fast(stage: Scene) -> Any:
    faults = translate_many(stage.memory, stage.regime, [], ACCESS).faults
    fast = plan_for(stage.regime, ACCESS, faults, update=True)
    if fast is None:
        raise AssertionError("no plan for a plain regime")
    return forms(fast[0]), fast[1]


def walks(library: ctypes.CDLL, size: Size) -> Iterator[Ratio]:
    """Batch translation with all checks, fault codes and A/D updates, random addresses, 2 % absent."""
    for footprint in size.footprints:
        yield from _walks(library, size, footprint)


def _walks(library: ctypes.CDLL, size: Size, footprint: int) -> Iterator[Ratio]:
    stage, n = scene(footprint, ram=1 << 38), size.walks
    kernels, plan = _fast(stage)
    view, chunks, words = flat_view(stage.memory), chunk_view(stage.memory), plan_words(stage, plan)
    vas = stage.addresses(n)
    sorted_vas = np.sort(vas)
    ours, theirs = (empty_words(n), empty_words(n)), np.zeros((2, n), U64)

    def c(form: str, addresses: Any) -> Any:
        call = getattr(library, f"walk_{form}")
        rest = pointer(theirs[0]), pointer(theirs[1])
        return lambda: call(pointer(words), pointer(addresses), ctypes.c_uint64(n), *rest)

    def numba(form: str, addresses: Any, memory: Any = view) -> Any:
        return lambda: getattr(kernels, form)(memory, plan, addresses, ours[0], ours[1])

    runs = {}
    for form, plain in FORMS.items():
        addresses = sorted_vas if form == "ordered" else vas
        runs[f"C {plain}"], runs[form] = c(plain, addresses), numba(form, addresses)
        runs[f"C {plain}"]()
        runs[form]()
        same(ours, theirs, f"{form}, {name_of(footprint)}")
    runs["C scalar, sorted"] = c("scalar", sorted_vas)
    runs["chunk single"], runs["chunk pipelined"] = numba("single", vas, chunks), numba("pipelined", vas, chunks)
    times, at = measure(runs, size.rounds), name_of(footprint)
    large, cached = (3.0 if footprint >= 16 * GIB else None), (3.0 if footprint == GIB else None)
    yield compare(f"single loop / C scalar, {at}", times, "single", "C scalar", n, 0.95)
    yield compare(f"pipelined / C scalar, {at}", times, "pipelined", "C scalar", n, large)
    yield compare(f"pipelined / C pipelined, {at}", times, "pipelined", "C pipelined", n, 0.9)
    yield compare(f"PDE cache / C scalar, {at}", times, "cached", "C scalar", n, cached)
    yield compare(f"PDE cache / C PDE cache, {at}", times, "cached", "C cached", n)
    yield compare(f"sorted / C scalar, same input, {at}", times, "ordered", "C scalar, sorted", n, 1.5)
    yield compare(f"chunked memory / flat, single loop, {at}", times, "chunk single", "single", n)
    yield compare(f"chunked memory / flat, pipelined, {at}", times, "chunk pipelined", "pipelined", n)


def architectures(library: ctypes.CDLL, size: Size) -> Iterator[Ratio]:
    """arm64 with 4 levels of 4 KiB tables against x86-64 with 4 levels: the same shape, the same addresses."""
    for footprint in size.footprints[:2]:
        runs, n = {}, size.walks
        out = empty_words(n), empty_words(n)
        for arch in ("x86_64", "arm64"):
            stage = scene(footprint, arch, ram=1 << 38)
            kernels, plan = _fast(stage)
            for form in ("single", "pipelined"):
                arguments = flat_view(stage.memory), plan, stage.addresses(n), *out
                runs[f"{arch} {form}"] = functools.partial(getattr(kernels, form), *arguments)
        times = measure(runs, size.rounds)
        for form in ("single", "pipelined"):
            row = f"arm64 / x86-64, {form}, {name_of(footprint)}"
            yield compare(row, times, f"arm64 {form}", f"x86_64 {form}", n, 0.9)


def spaces(library: ctypes.CDLL, size: Size) -> Iterator[Ratio]:
    """Every leaf, merged ranges and the reverse map of scattered frames."""
    for mapped in size.spaces:
        yield from _spaces(library, size, mapped)


def _spaces(library: ctypes.CDLL, size: Size, mapped: int) -> Iterator[Ratio]:
    stage = scene(mapped)
    pages, tables = mapped >> 12, (mapped >> 21) + 1
    view, tree = flat_view(stage.memory), stage.regime.trees[0]
    scratch, flat = np.zeros((2, tables), U64), np.zeros((2, pages + 1), U64)
    rows = np.zeros((pages, 4), U64)
    where = pointer(stage.words), ctypes.c_uint64(stage.root), pointer(scratch[0]), pointer(scratch[1])
    frames = ctypes.c_uint64(stage.ram >> 12)
    room = (empty_words(pages + 1), empty_words(pages + 1)), np.empty((4, pages + 1), U64)

    def c_reverse() -> tuple[Any, Any]:  # with a new result each time, as ours
        starts, sites = np.empty((stage.ram >> 12) + 1, np.uint32), np.empty(pages, U64)
        library.reverse(*where, pointer(starts), frames, pointer(sites))
        return starts, sites

    runs = {
        "C leaves": lambda: library.leaves(*where, pointer(flat[0]), pointer(flat[1])),
        "leaves": lambda: emit_tree(view, stage.regime, tree, room[0]),
        "C ranges": lambda: library.ranges(*where, pointer(rows)),
        "ranges": lambda: merge_tree(view, stage.regime, tree, room[1]),
        "C reverse": c_reverse,
        "reverse": lambda: reverse_map(view, {"": stage.regime}, trees=lambda other: other == tree, ram=stage.ram),
    }
    n = int(runs["C leaves"]())
    va, entry = runs["leaves"]()[:2]
    same(va, flat[0, :n], "leaves")
    same(entry, flat[1, :n], "entries of leaves")
    merged, count = runs["ranges"](), int(runs["C ranges"]())
    same(merged[:3].T, rows[:count][:, [0, 2, 1]], "ranges")
    (starts, sites), built = c_reverse(), runs["reverse"]()
    same(built.starts, starts, "starts of the reverse map")
    same(built.mappings, sites[:n], "the reverse map")
    times, at = measure(runs, size.rounds), name_of(mapped)
    yield compare(f"leaves / C, {at} scattered", times, "leaves", "C leaves", n, 1.0)
    yield compare(f"ranges / C, {at} scattered", times, "ranges", "C ranges", n, 0.95)
    yield compare(f"reverse map / C counting sort, {at} scattered", times, "reverse", "C reverse", n, 2.0)


def rmap(library: ctypes.CDLL, size: Size) -> Iterator[Ratio]:
    """fork and map with the accounting inside."""
    yield from _fork_small(library, size)
    yield from _fork_large(size)


def _frames(order: int, size: Size, shuffled: bool) -> tuple[BulkFrames, Any, Any]:
    accounting, n = Accounting(), size.fork >> 12
    folios = [accounting.folio(order, Kind.ANON, pfn, fresh=False) for pfn in range(0, n, 1 << order)]
    bulk = BulkFrames(accounting, folios, first_pfn=0, nr_frames=n, form=X86_FORM)
    pfns = np.arange(n, dtype=U64)
    if shuffled:
        np.random.default_rng(3).shuffle(pfns)
    return bulk, pfns, accounting.mm_ids


def _fork_small(library: ctypes.CDLL, size: Size) -> Iterator[Ratio]:
    bulk, pfns, _ = _frames(0, size, True)
    n = len(pfns)
    src, dst = pfns << U64(12) | U64(0x67), np.zeros(n, U64)
    records, twin = bulk.records, bulk.records.copy()
    limit = U64((1 << 31) - 1)
    at = U64(records.ctypes.data)

    def ours() -> Any:
        return bulk_kernels.fork_range(src, dst, bulk.form, at, bulk.pages, RW, U64(0), U64(2), True, limit)

    def theirs() -> Any:
        rest = ctypes.c_uint64(n), ctypes.c_uint64(0), ctypes.c_uint64(n), pointer(twin), ctypes.c_uint64(2)
        return library.fork_small(pointer(src), pointer(dst), *rest)

    if ours() != n or theirs() != n:
        raise AssertionError("fork stopped early")
    same(records, twin, "fork, order 0")
    stats, ptes, empty = np.zeros((3, 2), np.int64), np.zeros(n, U64), np.zeros(n, U64)

    def install(kernel: Any) -> Any:
        def run() -> None:
            ptes[:] = empty
            kernel(ptes, pfns, U64(0x67), bulk.form, at, bulk.pages, U64(2), True, limit, stats)

        return run

    hooked, by_hand = install(bulk_kernels.map_range), install(map_by_hand)
    before = records.copy()
    hooked()
    told = records.copy()
    records[:] = before
    by_hand()
    same(records, told, "map by hand")
    times = measure({"fork": ours, "C fork": theirs}, size.rounds)
    yield compare(f"fork {name_of(size.fork)}, order 0 scattered / C", times, "fork", "C fork", n, 0.95)
    times = measure({"map": hooked, "map by hand": by_hand}, size.rounds)  # on the same records, warm for both
    yield compare("map with hooks / the same written out by hand", times, "map", "map by hand", n, 0.9)


def _fork_large(size: Size) -> Iterator[Ratio]:
    bulk, pfns, _ = _frames(9, size, False)
    n = len(pfns)
    src, dst = pfns << U64(12) | U64(0x67), np.zeros(n, U64)
    at, limit = U64(bulk.records.ctypes.data), U64((1 << 31) - 1)

    def fork(batched: bool) -> Any:
        rest = RW, U64(0), U64(2), batched, limit
        return lambda: bulk_kernels.fork_range(src, dst, bulk.form, at, bulk.pages, *rest)

    runs = {"batched": fork(True), "single": fork(False)}
    if runs["batched"]() != n:
        raise AssertionError("fork stopped early")
    times = measure(runs, size.rounds)
    yield compare(f"fork {name_of(size.fork)}, order 9, batched / one by one", times, "batched", "single", n, 1.8)


SECTIONS = {"walks": walks, "architectures": architectures, "spaces": spaces, "rmap": rmap}

"""`python -m benchmarks.profile`: what limits the figures: the host memory's own pace, and the passes one by one."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ptwalk.mmu.kernels import flat_view, reverse
from ptwalk.mmu.kernels.batch import empty_words
from ptwalk.mmu.kernels.host import prefetch_host
from ptwalk.mmu.kernels.jit import kernel
from ptwalk.mmu.kernels.lanes import address_of, gather, peek_lanes, spread, stream_lanes, streamed

from .rows import GIB, MIB, U64, _fast
from .scenes import scene

WORDS = 1 << 20
_0, _3, _8, _EVERY, _AHEAD = U64(0), U64(3), U64(8), U64(255), U64(64)


@kernel
def gathered(table: Any, places: Any) -> Any:
    """Independent random reads, each asked for 64 reads ahead."""
    at, to, total = address_of(table), address_of(places), spread(_0)
    for k in range(_0, U64(places.size) - _AHEAD, _8):
        for j in range(k + _AHEAD, k + _AHEAD + _8):
            prefetch_host(at + (places[j] << _3))
        total = total + gather(at + (peek_lanes(to + (k << _3)) << _3), _EVERY)
    return (total == _0) == _0


@kernel
def streamed_copy(source: Any, out: Any) -> None:
    """One word read and one written past the caches."""
    at, to = address_of(source), address_of(out)
    for k in range(_0, U64(source.size), _8):
        stream_lanes(to + (k << _3), peek_lanes(at + (k << _3)))
    streamed()


def cost(run: Callable[[], object], items: int, rounds: int = 9) -> float:
    """The median CPU ns an item."""
    run()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        times.append((time.process_time() - begin) / items * 1e9)
    return statistics.median(times)


def floors() -> None:
    """What memory alone costs here."""
    rng = np.random.default_rng(1)
    print("memory, ns a word")
    for size in (128 << 10, 2 * MIB, 32 * MIB):
        table, places = np.ones(size // 8, U64), rng.integers(0, size // 8, WORDS, dtype=U64)
        taken = cost(functools.partial(gathered, table, places), WORDS)
        print(f"  random read of {size >> 10:>5} KiB, 64 in flight  {taken:6.2f}")
    source, out = np.ones(4 * WORDS, U64), empty_words(4 * WORDS)
    print(f"  copy, written past the caches           {cost(lambda: streamed_copy(source, out), 4 * WORDS):6.2f}")
    print(f"  copy by numpy                           {cost(lambda: np.copyto(out, source), 4 * WORDS):6.2f}")
    print(f"  first touch of new memory               {cost(lambda: np.empty(4 * WORDS, U64).fill(1), 4 * WORDS):6.2f}")


def walks() -> None:
    """Each form with tables in the nearest cache, and with each footprint."""
    print("batch translation, ns a walk")
    for footprint in (2 * MIB, 64 * MIB, GIB, 16 * GIB):
        stage = scene(footprint, ram=1 << 38)
        forms, plan = _fast(stage)
        arguments = flat_view(stage.memory), plan, stage.addresses(WORDS), empty_words(WORDS), empty_words(WORDS)
        figures = {name: cost(functools.partial(f, *arguments), WORDS) for name, f in forms._asdict().items()}
        print(f"  {footprint // MIB:>6} MiB  " + "  ".join(f"{name} {ns:5.2f}" for name, ns in figures.items()))


def passes() -> None:
    """The reverse map pass by pass."""
    names = ("outline_of", "histogram", "partition", "drain", "local_fill")
    for gib in (8, 32):
        stage, spent = scene(gib * GIB), dict.fromkeys(names, 0.0)
        view, tree, kept = flat_view(stage.memory), stage.regime.trees[0], {n: getattr(reverse, n) for n in names}

        def timed(name: str, function: Any, spent: dict[str, float] = spent) -> Any:
            def run(*arguments: Any) -> Any:
                begin = time.thread_time()
                result = function(*arguments)
                spent[name] += time.thread_time() - begin
                return result

            return run

        def run(stage: Any = stage, view: Any = view, tree: Any = tree) -> Any:
            return reverse.reverse_map(view, {"": stage.regime}, trees=tree.__eq__, ram=stage.ram)

        leaves = len(run())
        for name, function in kept.items():
            setattr(reverse, name, timed(name, function))
        total = cost(run, leaves)
        for name, function in kept.items():
            setattr(reverse, name, function)
        parts = "  ".join(f"{name} {seconds / 10 / leaves * 1e9:.2f}" for name, seconds in spent.items())
        print(f"reverse map of {gib} GiB, ns a leaf: {total:.2f} in all; {parts}")


if __name__ == "__main__":
    floors()
    walks()
    passes()

"""The reference walker behind the interface of the kernels: for regimes that no kernel covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arch.errors import BusError
from ..regime import Regime
from ..walk import Access, Outcome, outcome
from .access import load, store
from .batch import NO_LEVEL, pack_info
from .jit import kernel
from .views import View

U64 = np.uint64
BUS_ERROR = "bus error"


@kernel
def _load_one(view: Any, i: Any, pa: Any) -> Any:
    return load(view, i, pa)


@kernel
def _store_one(view: Any, i: Any, pa: Any, value: Any) -> Any:
    return store(view, i, pa, value)


class ViewMemory:
    """A view (case `i` of a WordsView) as the walkers' `Memory`."""

    def __init__(self, view: View, i: int = 0) -> None:
        self.view, self.i = view, U64(i)

    def _word(self, pa: int) -> int:
        ok, value = _load_one(self.view, self.i, U64(pa))
        if not ok:
            raise BusError(pa)
        return int(value)

    def read_uint(self, pa: int, size: int = 8) -> int:
        if size == 16:
            return self._word(pa) | self._word(pa + 8) << 64
        word = self._word(pa & ~7)
        return word if size == 8 else word >> (pa & 4) * 8 & 0xFFFF_FFFF

    def write_uint(self, pa: int, value: int, size: int = 8) -> None:
        if size == 16:
            self.write_uint(pa, value & (1 << 64) - 1)
            self.write_uint(pa + 8, value >> 64)
            return
        if size == 4:
            shift = (pa & 4) * 8
            value = self._word(pa & ~7) & ~(0xFFFF_FFFF << shift) | value << shift
        if not _store_one(self.view, self.i, U64(pa & ~7), U64(value)):
            raise BusError(pa, size)


def walk_one(memory: Any, regime: Regime, va: int, access: Access, *, update: bool) -> Outcome | None:
    """The outcome of one reference walk, None where a table lies outside memory."""
    try:
        return outcome(regime.walk(memory, va, access, update=update))
    except BusError:
        return None


def info_of(result: Outcome | None, faults: tuple[str, ...]) -> int:
    """The info word of `walk_one`'s result."""
    return NO_LEVEL << 16 | faults.index(BUS_ERROR) << 24 if result is None else pack_info(result, faults)


def translate(
    memory: Any,
    regime: Regime,
    vas: Iterable[int],
    access: Access,
    update: bool,
    faults: tuple[str, ...],
    pa: NDArray[np.uint64],
    info: NDArray[np.uint64],
) -> None:
    """Fill `pa` and `info` by reference walks."""
    for k, va in enumerate(vas):
        result = walk_one(memory, regime, int(va), access, update=update)
        pa[k] = getattr(result, "pa", 0)
        info[k] = info_of(result, faults)

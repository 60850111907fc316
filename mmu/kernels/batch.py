"""The result of translating many addresses: two words per address, `pa` and `info`.

Every kernel fills the same two arrays. `info` is one word so that it costs one store; seen through `INFO` it is a
record of rights, page size, level, fault kind and fault code.

What an architecture's `mmu/<arch>/kernels.py` offers to `translate_many`:

- `FAULTS`: names by fault kind; kind 0 is `""` (translated), the others are the reference walker's `Fault.name`.
- `translate(view, regime, vas, access, update, pa, info)`: fills `pa` and `info` for `vas` by the full rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..walk import Fault, Outcome
from .host import host_address
from .jit import helper

U64 = np.uint64
LINE = 8  # words in a line of the host's cache
NO_LEVEL = 127  # the level of an outcome that no table entry decided

INFO = np.dtype([("rights", "u1"), ("page_shift", "u1"), ("level", "i1"), ("fault", "u1"), ("code", "<u4")])
_8, _16, _24, _32, _BYTE = U64(8), U64(16), U64(24), U64(32), U64(255)


def empty_words(count: int) -> NDArray[np.uint64]:
    """Words that begin on a line of the host's cache: the forms store results of large batches past the caches then.

    >>> words = empty_words(3)
    >>> len(words), words.ctypes.data % 64
    (3, 0)
    """
    words = np.empty(count + LINE - 1, np.uint64)
    first = -host_address(words) // 8 % LINE
    return words[first : first + count]


@helper
def pack(rights: Any, page_shift: Any, level: Any, fault: Any, code: Any) -> Any:
    """The info word: all arguments uint64, `level` as its low byte (-1 is 255)."""
    return rights | page_shift << _8 | (level & _BYTE) << _16 | fault << _24 | code << _32


def pack_info(result: Outcome, faults: Sequence[str]) -> int:
    """The info word of a reference walk's outcome.

    >>> hex(pack_info(Fault(va=0, name="#PF", code=4, rule="", level=1), ("", "#PF")))
    '0x401010000'
    """
    level = (NO_LEVEL if result.level is None else result.level) & 0xFF
    if isinstance(result, Fault):
        return level << 16 | faults.index(result.name) << 24 | result.code << 32
    return int(result.rights) | result.page_shift << 8 | level << 16


@dataclass(frozen=True, slots=True)
class Batch:
    """The outcomes of `len(va)` walks, in order; `faults` names the fault kinds.

    `pa` (uint64) is 0 where the walk faulted. The other columns are views into `info`.
    """

    va: NDArray[np.uint64]
    pa: NDArray[np.uint64]
    info: NDArray[np.uint64]
    faults: Sequence[str]

    def __len__(self) -> int:
        return len(self.va)

    def _column(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self.info.view(INFO)[name]
        return column

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which addresses translated."""
        ok: NDArray[np.bool_] = self.fault == 0
        return ok

    @property
    def rights(self) -> NDArray[np.uint8]:
        """The six plain accesses as bits of `walk.Rights`; 0 where the walk faulted."""
        return self._column("rights")

    @property
    def page_shift(self) -> NDArray[np.uint8]:
        """log2 of the page's bytes; 0 where the walk faulted."""
        return self._column("page_shift")

    @property
    def level(self) -> NDArray[np.int8]:
        """The level of the leaf or of the entry to blame, in the manual's numbers; NO_LEVEL where none decided."""
        return self._column("level")

    @property
    def fault(self) -> NDArray[np.uint8]:
        """The fault kind, an index into `faults`; 0 where the address translated."""
        return self._column("fault")

    @property
    def code(self) -> NDArray[np.uint32]:
        """The architecture's fault code: the #PF error code, the fault status code; 0 where there is none."""
        return self._column("code")

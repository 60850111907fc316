"""Errors of the accounting: each is one clear sentence about one folio under one model."""

from __future__ import annotations

from ..arch.errors import PtwalkError


class Rejected(PtwalkError):
    """A mapping that the named model's kernel refuses or warns about; no counter was changed.

    >>> str(Rejected("precise", "a PMD maps only a PMD-sized folio, this one has 1024 pages"))
    'precise: a PMD maps only a PMD-sized folio, this one has 1024 pages'
    """

    def __init__(self, model: str, problem: str) -> None:
        self.model, self.problem = model, problem
        super().__init__(f"{model}: {problem}")


class CounterOverflow(Rejected):
    """The hard limit of a counter: the kernel proposal's -EOVERFLOW, raised before any counter changed."""


class Busy(Rejected):
    """fork's -EBUSY: the pages may be pinned, or a counter is at its limit; they are copied instead."""


class FreeError(PtwalkError):
    """A folio freed while a counter is not at its free-time value (the kernel's "bad page" report).

    >>> str(FreeError("precise", "_large_mapcount", 0, -1))
    'precise: folio freed with _large_mapcount 0, not -1'
    """

    def __init__(self, model: str, field: str, value: object, expected: object) -> None:
        self.model, self.field, self.value, self.expected = model, field, value, expected
        super().__init__(f"{model}: folio freed with {field} {value}, not {expected}")

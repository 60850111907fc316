"""Vector cases through the compiled walker: the same result columns as the reference walker gives, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.views import words_view
from . import kernels, rows
from .cases import COLUMNS, SUCCESS, VECTORS, CaseFile
from .kernels import FAULTS, SLOT


@dataclass(frozen=True, slots=True)
class KernelRun:
    """Result columns by name for all cases, and the words of memory afterwards."""

    columns: dict[str, NDArray[Any]]
    file: CaseFile
    after: NDArray[np.uint64]

    def words(self, i: int) -> dict[int, int]:
        """The words of case `i` afterwards."""
        offsets, order = self.file.arrays["mem_off"], self.file.arrays["mem_pa"]
        a, b = int(offsets[i]), int(offsets[i + 1])
        return dict(zip(sorted(order[a:b].tolist()), self.after[a:b].tolist(), strict=True))


def run(file: CaseFile, profile: str = "architecture") -> KernelRun:
    """All cases of a file; RegisterError where a case's registers cannot be used."""
    n = len(file)
    table = np.array([rows.pack(file.regime(i, profile), file.access(i)) for i in range(n)], np.uint64)
    view = words_view(file.arrays["mem_off"], file.arrays["mem_pa"], file.arrays["mem_val"].astype(np.uint64))
    out = np.zeros((n, len(kernels.SLOTS)), np.uint64)
    vas = file.arrays["va"].astype(np.uint64)
    kernels.translate_cases(view, table, vas, np.ones(n, np.bool_), out)
    return KernelRun(_columns(file, out), file, view.values)


def _columns(file: CaseFile, out: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    def slot(name: str) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = out[:, SLOT[name]]
        return found

    fault = slot("fault")
    vectors = np.array([SUCCESS, *(VECTORS.get(name, 0) for name in FAULTS[1:])])
    page, nested = fault == FAULTS.index("#PF"), fault == FAULTS.index("#VMEXIT(NPF)")
    good, cause = fault == 0, slot("cause")
    protection = np.where(nested & (cause > 2), 0, cause)
    va = file.arrays["va"].astype(np.uint64)
    columns = {
        "o_vec": vectors[fault.astype(np.int64)],
        "o_err": np.where(page, slot("code"), 0),
        "o_cr2": np.where(page, va, 0),
        "o_pa": np.where(good, slot("pa"), 0),
        "o_gpa": np.where(good, slot("gpa"), 0),
        "o_level": slot("leaf").astype(np.int64) - 1,
        "o_npf_info1": np.where(nested, slot("code"), 0),
        "o_npf_info2": np.where(nested, slot("gpa2"), 0),
        "o_cause": protection,
    }
    return {name: columns[name] for name in COLUMNS}

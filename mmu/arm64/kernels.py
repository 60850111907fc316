"""The full rules, compiled: both stages of translation with 64-bit descriptors, equal to the reference walker.

One function walks stage 1, one stage 2; both take the controls from a row of `rows.pack` and leave what they found in
a scratch array whose places `SLOTS` names. Levels count from 0 (the manual's -1) to 4 here; faults are numbered as in
`FaultType`. What `rows.not_taken` names (permission indirection and overlay, 128-bit descriptors, granule protection,
the deviations of emulators) is left to the reference walker.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arch.arm64.faults import FaultType, fault_status_code
from ...arch.errors import PtwalkError
from ..kernels.batch import NO_LEVEL
from ..kernels.jit import kernel
from ..kernels.reference import ViewMemory
from ..kernels.reference import translate as reference_translate
from ..kernels.views import View
from ..regime import Regime
from ..walk import Access
from . import kernel_terms as t
from .access import Arm64Access
from .kernel_stage1 import early, stage1_off, stage1_walk
from .kernel_stage2 import stage2_recipe, stage2_walk
from .regime import Arm64Regime
from .rows import not_taken, pack

U64 = np.uint64
FAULTS = ("", *(fault.title for fault in FaultType if fault), "bus error")
_KIND = {fault: FAULTS.index(fault.title) for fault in FaultType if fault}
_0, _1, _4, _7, _8, _16 = (U64(n) for n in (0, 1, 4, 7, 8, 16))


@kernel
def _translate(view: Any, i: Any, s: Any, p: Any, r: Any, va: Any, commit: Any) -> Any:
    """Translate one address; the scratch array says how it went."""
    s[:] = _0
    s[t.WNR] = p[r, t.WRITE] if p[r, t.READ] == _0 else _0
    if p[r, t.ON] == _0:
        if not stage1_off(p, r, s, va):
            return
        s[t.RIGHTS] = t.ALL_RIGHTS if p[r, t.UNPRIV] != _0 else _7
    else:
        if not early(p, r, s, va):
            return
        done = 2
        for _ in range(t.RETRIES):
            done = stage1_walk(view, i, s, p, r, va, commit)
            if done != 2:
                break
        if done == 0:
            return
    s[t.IPAV], s[t.PA] = _1, s[t.IPA]
    if p[r, t.TWO] != _0 and p[r, t.S1ONLY] == _0 and p[r, t.S2ON] != _0:
        attr = s[t.RECIPE] & U64(255)
        off = s[t.RECIPE] >> t.R_OFF & _7
        uncached = s[t.RECIPE] >> t.R_UNCACHED1 & _1 != _0
        s1_device = off == _4 or (off == _0 and attr < _16 and not uncached)
        if not stage2_walk(view, i, s, p, r, s[t.IPA], False, False, s1_device, commit):
            return
        s[t.PA] = s[t.OUT]
        stage2_recipe(p, r, s, s1_device)


@kernel
def translate_cases(view: Any, p: Any, vas: Any, taken: Any, commit: Any, out: Any) -> Any:
    """Translate case i with row i for every i that is taken; `out` receives the scratch arrays."""
    s = np.zeros(len(t.SLOTS), np.uint64)
    for i in range(len(vas)):
        if taken[i]:
            _translate(view, U64(i), s, p, i, vas[i], commit)
            out[i, :] = s


@kernel
def _translate_all(
    view: Any, p: Any, halves: Any, kinds: Any, codes: Any, vas: Any, commit: Any, pa: Any, info: Any
) -> Any:
    s = np.zeros(len(t.SLOTS), np.uint64)
    for k in range(len(vas)):
        va = vas[k]
        r = 1 if halves and va >> t.TOP_BIT & _1 != _0 else 0
        _translate(view, _0, s, p, r, va, commit)
        fault = s[t.FAULT]
        if fault != _0:
            pa[k] = _0
            level = s[t.LEVEL] + U64(255)
            info[k] = (level & U64(255)) << _16 | kinds[fault] << U64(24) | codes[fault, s[t.LEVEL]] << U64(32)
        else:
            pa[k] = s[t.PA]
            size = U64(12)
            level = U64(NO_LEVEL)
            if s[t.LEAF1] != _0:
                size = p[r, t.G] + (_4 - s[t.LV1]) * p[r, t.STRIDE]
                level = s[t.LV1] + U64(255)
            if s[t.LEAF2] != _0:
                second = p[r, t.G + t.S2] + (_4 - s[t.LV2]) * p[r, t.STRIDE + t.S2]
                size = min(size, second) if s[t.LEAF1] != _0 else second
            info[k] = s[t.RIGHTS] | size << _8 | (level & U64(255)) << _16


def code_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Fault kind in the batch by fault number, and fault status code by fault number and level."""
    kinds = np.zeros(len(FaultType) + 16, np.uint64)
    codes = np.zeros((len(FaultType) + 16, 6), np.uint64)
    for fault, kind in _KIND.items():
        kinds[fault] = kind
        for level in range(5):
            try:
                codes[fault, level] = fault_status_code(fault, level - 1)
            except KeyError:
                continue
    return kinds, codes


def translate(
    view: View,
    regime: Regime,
    vas: NDArray[np.uint64],
    access: Access,
    update: bool,
    pa: NDArray[np.uint64],
    info: NDArray[np.uint64],
) -> None:
    """Fill `pa` and `info` (see mmu.kernels.batch) for `vas`; what the kernel does not take goes to the walker."""
    if not isinstance(regime, Arm64Regime):
        raise PtwalkError("the arm64 kernel translates for arm64 regimes only")
    asked, system, name = Arm64Access.of(access), regime.system, regime.name
    probes = (0, 1 << 55) if name.unprivileged else (0,)
    if system.regime(asked.level) is not name or any(not_taken(system, name, va, asked) for va in probes):
        reference_translate(ViewMemory(view), regime, vas.tolist(), access, update, FAULTS, pa, info)
        return
    rows = np.array([pack(system, name, va, asked) for va in probes], np.uint64)
    kinds, codes = code_tables()
    _translate_all(view, rows, name.unprivileged, kinds, codes, vas, update, pa, info)

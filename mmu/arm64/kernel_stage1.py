"""Stage 1, compiled: from a virtual address to an intermediate physical one; its descriptors go through stage 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.access import load
from ..kernels.jit import kernel
from . import kernel_terms as t
from .kernel_stage2 import stage2_walk

U64 = np.uint64
_0, _1, _2, _3, _4, _7, _8, _16 = (U64(n) for n in (0, 1, 2, 3, 4, 7, 8, 16))


@kernel
def _s1_rights(p: Any, r: Any, raw: Any, tables: Any, el0: Any, pan: Any) -> Any:
    """Read, write, execute as bits 0 to 2 (permissions._direct)."""
    managed = p[r, t.HA] != _0 and p[r, t.HD] != _0 and raw & t.DBM != _0
    read, write, execute = True, tables & t.APTRO == _0 and (raw & t.AP2 == _0 or managed), True
    nv1 = p[r, t.NV1] != _0
    if p[r, t.UNPRIV] == _0:
        execute = raw & t.UXN == _0 and tables & t.UXNT == _0
    else:
        user = raw & t.AP1 != _0 and not nv1 and tables & t.APT0 == _0
        user_execute = nv1 or (raw & t.UXN == _0 and tables & t.UXNT == _0)
        if el0:
            read, write, execute = user, user and write, user_execute
        else:
            own, own_table = (t.UXN, t.UXNT) if nv1 else (t.PXN, t.PXNT)
            execute = raw & own == _0 and tables & own_table == _0 and not (user and write)
            if pan and not nv1 and (user or (p[r, t.EPAN] != _0 and user_execute)):
                read, write = False, False
    if p[r, t.WXN] != _0 and write and execute:
        execute = False
    return (_1 if read else _0) | (_2 if write else _0) | (_4 if execute else _0)


@kernel
def _s1_check(p: Any, r: Any, s: Any, raw: Any, level: Any, tables: Any, va: Any, joined: Any, out: Any) -> Any:
    """The checks of a stage 1 leaf (stage1._checks); True where it grants the access."""
    size = p[r, t.G] + (_4 - level) * p[r, t.STRIDE]
    if joined != _0 and size + joined > p[r, t.IA] and p[r, t.CONTF] != _0:
        return t.fail(s, t.TRANSLATION, level, _0, _0, _0)
    if level < _4 and raw & t.NT != _0 and p[r, t.NTF] != _0:
        return t.fail(s, t.TRANSLATION, level, _0, _0, _0)
    if out >> p[r, t.OA] != _0:
        return t.fail(s, t.ADDRESS_SIZE, level, _0, _0, _0)
    if raw & t.AF == _0 and p[r, t.HA] == _0:
        return t.fail(s, t.ACCESS_FLAG, level, _0, _0, _0)
    s[t.LEAF1] = _1
    attr = p[r, t.MAIR] >> (raw >> t.ATTR_SHIFT & _7) * _8 & U64(255)
    if attr < _16 and t.misaligned(p, r):
        return t.fail(s, t.ALIGNMENT, level, _0, _0, _0)
    el0 = p[r, t.EL0] != _0
    rights = _s1_rights(p, r, raw, tables, el0, p[r, t.PANA] != _0)
    denied = False
    if p[r, t.FETCH] != _0:
        denied = rights & _4 == _0
    elif p[r, t.CACHEOP] != _0:
        denied = el0 and rights & _1 == _0
    elif p[r, t.READ] != _0 and rights & _1 == _0:
        denied = True
        s[t.WNR] = _0
    elif p[r, t.WRITE] != _0 and rights & _2 == _0:
        denied = True
        s[t.WNR] = _1
    if denied:
        return t.fail(s, t.PERMISSION, level, _0, _0, _0)
    return True


@kernel
def early(p: Any, r: Any, s: Any, va: Any) -> Any:
    """The faults of stage 1 that need no table (stage1._early); True where there is none."""
    failed = p[r, t.EARLY] == _1
    if not failed:
        iasize, top = p[r, t.IA], p[r, t.TOP]
        if top >= iasize:
            width = top + _1 - iasize
            ones = (_1 << width) - _1
            checked = va >> iasize & ones
            upper = p[r, t.UNPRIV] != _0 and va >> t.TOP_BIT & _1 != _0
            failed = checked != (ones if upper else _0)
    failed = failed or (p[r, t.EL0] != _0 and p[r, t.E0PD] != _0) or p[r, t.EARLY] == _2
    if failed:
        return t.fail(s, t.TRANSLATION, _1, _0, _0, _0)
    return True


@kernel
def stage1_off(p: Any, r: Any, s: Any, va: Any) -> Any:
    """Stage 1 disabled (stage1._off)."""
    inside = va if p[r, t.TOP] == U64(63) else va & ((_1 << (p[r, t.TOP] + _1)) - _1)
    if inside >> p[r, t.PAMAX] != _0:
        return t.fail(s, t.ADDRESS_SIZE, _1, _0, _0, _0)
    if p[r, t.OFF] == _4 and t.misaligned(p, r):
        return t.fail(s, t.ALIGNMENT, _1, _0, _0, _0)
    s[t.IPA] = va & ((_1 << U64(56)) - _1)
    s[t.RECIPE] = p[r, t.OFF] << t.R_OFF
    return True


@kernel
def _where(view: Any, i: Any, s: Any, p: Any, r: Any, pa: Any, update: Any, commit: Any) -> Any:
    """Where a stage 1 descriptor lies: s[t.OUT]; False where stage 2 denies it."""
    if p[r, t.TWO] == _0:
        s[t.OUT] = pa
        return True
    return stage2_walk(view, i, s, p, r, pa, True, update, False, commit)


@kernel
def _stage1_recipe(p: Any, r: Any, s: Any, raw: Any) -> Any:
    attr = p[r, t.MAIR] >> (raw >> t.ATTR_SHIFT & _7) * _8 & U64(255)
    sh = p[r, t.SH] if p[r, t.DS] != _0 else raw >> t.SH_SHIFT & _3
    device, fetch = attr < _16, p[r, t.FETCH] != _0
    uncached = (fetch and (device or p[r, t.IC] == _0)) or (not fetch and not device and p[r, t.DC] == _0)
    s[t.RECIPE] = attr | sh << t.R_SH | (_1 if uncached else _0) << t.R_UNCACHED1


@kernel
def stage1_walk(view: Any, i: Any, s: Any, p: Any, r: Any, va: Any, commit: Any) -> Any:
    """One attempt at stage 1: 0 fault, 1 done, 2 the leaf changed under the walk (stage1.translate)."""
    level, pa, tables, raw = p[r, t.START], t.first_entry(p, r, 0, va), _0, _0
    if pa >> p[r, t.OA] != _0:
        t.fail(s, t.ADDRESS_SIZE, _1, _0, _0, _0)
        return 0
    for _ in range(1024):
        if not _where(view, i, s, p, r, pa, False, commit):
            return 0
        s[t.ENTRY] = s[t.OUT]
        ok, raw = load(view, i, s[t.OUT])
        if not ok:
            t.fail(s, t.EXTERNAL, level, _0, _0, _0)
            return 0
        s[t.READS] += _1
        if p[r, t.EE] != _0:
            raw = t.byte_swapped(raw)
        kind = t.kind_of(p, r, 0, raw, level)
        if kind == _0:
            t.fail(s, t.TRANSLATION, level, _0, _0, _0)
            return 0
        if kind == _2:
            break
        following = t.next_entry(p, r, 0, raw, level, va)
        if following >> p[r, t.OA] != _0:
            t.fail(s, t.ADDRESS_SIZE, level, _0, _0, _0)
            return 0
        if p[r, t.HAFT] != _0 and raw & t.AF == _0:
            if not _where(view, i, s, p, r, pa, True, commit):
                return 0
            if not t.exchange(view, i, s, p, r, 0, s[t.OUT], raw, raw | t.AF, commit):
                continue
        tables |= raw & p[r, t.TMASK]
        level, pa = level + _1, following
    entry = s[t.ENTRY]
    joined = t.contiguous_log2(p[r, t.G], level) if raw & t.CONT != _0 else _0
    out = t.output_address(p, r, 0, raw, level, joined, va)
    s[t.RAW1], s[t.LV1], s[t.CONT1] = raw, level, joined
    if not _s1_check(p, r, s, raw, level, tables, va, joined, out):
        return 0
    new = raw
    if p[r, t.HA] != _0:
        new |= t.AF
        writes = p[r, t.WRITE] != _0 and p[r, t.AT] == _0 and p[r, t.CACHEOP] == _0
        if writes and p[r, t.HD] != _0 and raw & t.DBM != _0:
            new &= ~t.AP2
    if new != raw:
        if not _where(view, i, s, p, r, pa, True, commit):
            return 0
        if not t.exchange(view, i, s, p, r, 0, s[t.OUT], raw, new, commit):
            return 2
    s[t.ENTRY], s[t.IPA] = entry, out & ((_1 << U64(56)) - _1)
    _stage1_recipe(p, r, s, raw)
    both = _s1_rights(p, r, raw, tables, False, p[r, t.PAN] != _0) & _3
    both |= _s1_rights(p, r, raw, tables, False, False) & _4
    if p[r, t.UNPRIV] != _0 and p[r, t.E0PD] == _0:
        both |= _s1_rights(p, r, raw, tables, True, False) << _3
    s[t.RIGHTS] = both
    return 1

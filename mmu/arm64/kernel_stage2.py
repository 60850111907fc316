"""Stage 2, compiled: from an intermediate physical address to a physical one, for walks and for accesses."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.access import load
from ..kernels.jit import kernel
from . import kernel_terms as t

U64 = np.uint64
_0, _1, _2, _3, _4, _15 = (U64(n) for n in (0, 1, 2, 3, 4, 15))


@kernel
def _s2_rights(p: Any, r: Any, raw: Any, el0: Any) -> Any:
    """Read, write, execute as bits 0 to 2."""
    rights = _0
    if raw & t.AP1 != _0:
        rights |= _1
    managed = p[r, t.HA + t.S2] != _0 and p[r, t.HD + t.S2] != _0 and raw & t.DBM != _0
    if raw & t.AP2 != _0 or managed:
        rights |= _2
    code = raw >> t.XN_SHIFT & _3
    if p[r, t.XNX] == _0:
        code &= _2
    if code == _0 or (code == _1 and el0) or (code == _3 and not el0):
        rights |= _4
    return rights


@kernel
def _s2_device(p: Any, r: Any, raw: Any, s1_device: Any) -> Any:
    memattr = raw >> t.MEMATTR_SHIFT & _15
    if p[r, t.FWB] != _0:
        if memattr & _4 == _0:
            return True
        return s1_device and memattr & _3 != _2
    return memattr >> _2 == _0


@kernel
def _s2_check(p: Any, r: Any, s: Any, raw: Any, level: Any, ipa: Any, walk: Any, update: Any, s1_device: Any) -> Any:
    """The checks of a stage 2 leaf (stage2._checks); True where it grants the access."""
    size = p[r, t.G + t.S2] + (_4 - level) * p[r, t.STRIDE + t.S2]
    joined = t.contiguous_log2(p[r, t.G + t.S2], level) if raw & t.CONT != _0 else _0
    out = t.output_address(p, r, t.S2, raw, level, joined, ipa)
    s[t.OUT], s[t.CONT2] = out, joined
    is_walk = _1 if walk else _0
    if joined != _0 and size + joined > p[r, t.IA + t.S2] and p[r, t.CONTF] != _0:
        return t.fail(s, t.TRANSLATION, level, _1, is_walk, ipa)
    if level < _4 and raw & t.NT != _0 and p[r, t.NTF] != _0:
        return t.fail(s, t.TRANSLATION, level, _1, is_walk, ipa)
    if out >> p[r, t.OA + t.S2] != _0:
        return t.fail(s, t.ADDRESS_SIZE, level, _1, is_walk, ipa)
    if raw & t.AF == _0 and p[r, t.HA + t.S2] == _0:
        return t.fail(s, t.ACCESS_FLAG, level, _1, is_walk, ipa)
    device = _s2_device(p, r, raw, s1_device)
    if not walk:
        s[t.LEAF2] = _1
    if device and not walk and t.misaligned(p, r):
        return t.fail(s, t.ALIGNMENT, level, _1, is_walk, ipa)
    el0 = p[r, t.EL0] != _0
    rights = _s2_rights(p, r, raw, el0)
    denied = False
    if walk:
        denied = (p[r, t.PTW] != _0 and device) or rights & _1 == _0 or (update and rights & _2 == _0)
    elif p[r, t.FETCH] != _0:
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
        return t.fail(s, t.PERMISSION, level, _1, is_walk, ipa)
    return True


@kernel
def stage2_walk(
    view: Any, i: Any, s: Any, p: Any, r: Any, ipa: Any, walk: Any, update: Any, s1_device: Any, commit: Any
) -> Any:
    """Translate `ipa` to s[t.OUT]; False with the fault in the scratch array (stage2.translate)."""
    is_walk = _1 if walk else _0
    if p[r, t.S2ON] == _0:
        s[t.OUT] = ipa
        return True
    if p[r, t.S2BAD] != _0 or ipa >> p[r, t.IA + t.S2] != _0:
        return t.fail(s, t.TRANSLATION, _1, _1, is_walk, ipa)
    level, pa = p[r, t.START + t.S2], t.first_entry(p, r, t.S2, ipa)
    if pa >> p[r, t.OA + t.S2] != _0:
        return t.fail(s, t.ADDRESS_SIZE, _1, _1, is_walk, ipa)
    raw = _0
    while True:
        ok, raw = load(view, i, pa)
        s[t.ENTRY] = pa
        if not ok:
            return t.fail(s, t.EXTERNAL, level, _1, is_walk, ipa)
        s[t.READS] += _1
        if p[r, t.EE + t.S2] != _0:
            raw = t.byte_swapped(raw)
        kind = t.kind_of(p, r, t.S2, raw, level)
        if kind == _0:
            return t.fail(s, t.TRANSLATION, level, _1, is_walk, ipa)
        if kind == _2:
            break
        following = t.next_entry(p, r, t.S2, raw, level, ipa)
        if following >> p[r, t.OA + t.S2] != _0:
            return t.fail(s, t.ADDRESS_SIZE, level, _1, is_walk, ipa)
        if p[r, t.HAFT + t.S2] != _0 and raw & t.AF == _0:
            t.exchange(view, i, s, p, r, t.S2, pa, raw, raw | t.AF, commit)
        level, pa = level + _1, following
    if not walk:
        s[t.RAW2], s[t.LV2] = raw, level
    if not _s2_check(p, r, s, raw, level, ipa, walk, update, s1_device):
        return False
    new = raw
    if p[r, t.HA + t.S2] != _0:
        new |= t.AF
        writes = update if walk else p[r, t.WRITE] != _0 and p[r, t.AT] == _0 and p[r, t.CACHEOP] == _0
        if writes and p[r, t.HD + t.S2] != _0 and raw & t.DBM != _0:
            new |= t.AP2
    if new != raw:
        t.exchange(view, i, s, p, r, t.S2, pa, raw, new, commit)
    return True


@kernel
def stage2_recipe(p: Any, r: Any, s: Any, s1_device: Any) -> Any:
    raw = s[t.RAW2]
    device, fetch = _s2_device(p, r, raw, s1_device), p[r, t.FETCH] != _0
    uncached = (fetch and (device or p[r, t.ICD] != _0)) or (not fetch and not device and p[r, t.CD] != _0)
    sh = p[r, t.S2SH] if p[r, t.DS + t.S2] != _0 else raw >> t.SH_SHIFT & _3
    fields = (raw >> t.MEMATTR_SHIFT & _15) << t.R_MEMATTR | sh << t.R_SH2 | (raw >> t.FNXS_SHIFT & _1) << t.R_FNXS
    s[t.RECIPE] |= fields | _1 << t.R_S2 | p[r, t.FWB] << t.R_FWB | (_1 if uncached else _0) << t.R_UNCACHED2
    both = _s2_rights(p, r, raw, False) | _s2_rights(p, r, raw, True) << _3
    s[t.RIGHTS] &= both

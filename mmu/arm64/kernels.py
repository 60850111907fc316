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
from ..kernels.access import load, store
from ..kernels.batch import NO_LEVEL
from ..kernels.jit import kernel
from ..kernels.reference import ViewMemory
from ..kernels.reference import translate as reference_translate
from ..kernels.views import View
from ..regime import Regime
from ..walk import Access
from . import entries, permissions
from .access import Arm64Access
from .regime import Arm64Regime
from .rows import INDEX, not_taken, pack

U64 = np.uint64
FAULTS = ("", *(fault.title for fault in FaultType if fault), "bus error")
_KIND = {fault: FAULTS.index(fault.title) for fault in FaultType if fault}

_SLOTS = """fault level stage2 s1ptw write fault_ipa out raw2 level2 contig2 reads writes pa ipa ipa_valid raw1 level1
    contig1 recipe rights leaf1 leaf2 entry_pa"""
SLOTS = tuple(_SLOTS.split())
SLOT = {name: i for i, name in enumerate(SLOTS)}


def _places(names: str) -> tuple[int, ...]:
    return tuple(INDEX[name] for name in names.split())


_ON, _OFF, _PAMAX, _TOP, _UNPRIV, _EARLY = _places("on off_recipe pamax top unprivileged early_fault")
_SH, _MAIR = _places("sh mair")
_EPAN, _WXN, _NV1, _TMASK, _E0PD, _IC, _DC = _places("epan wxn nv1 table_mask e0pd icache dcache")
_G, _STRIDE, _IA, _START, _BASE, _OA = _places("granule stride iasize start base oa_size")
_HA, _HD, _HAFT, _EE, _DS, _WIDE, _BLOCK = _places("ha hd haft ee ds wide_oa block_low")
_S2 = INDEX["s2_granule"] - INDEX["granule"]  # from a geometry column of stage 1 to that of stage 2
_TWO, _S1ONLY, _NTF, _CONTF = _places("two_stages stage1_only nt_faults contig_faults")
_S2ON, _S2BAD, _S2SH, _PTW, _FWB, _CD, _ICD, _XNX = _places("s2_on s2_bad s2_sh s2_ptw s2_fwb s2_cd s2_icd s2_xnx")
_FETCH, _CACHEOP, _ZVA, _AT, _READ, _WRITE = _places("fetch cache_op dc_zva at read write")
_EL0, _ALIGNED, _PANA, _PAN = _places("el0 aligned pan_access pan")
(_FAULT, _LEVEL, _STAGE2, _S1PTW, _WNR, _FIPA, _OUT, _RAW2, _LV2, _CONT2, _READS, _WRITES, _PA, _IPA, _IPAV, _RAW1) = (
    range(16)
)
(_LV1, _CONT1, _RECIPE, _RIGHTS, _LEAF1, _LEAF2, _ENTRY) = range(16, 23)

_0, _1, _2, _3, _4, _6, _7, _8, _15, _16 = (U64(n) for n in (0, 1, 2, 3, 4, 6, 7, 8, 15, 16))
_VALID, _TABLE, _AF = U64(entries.VALID), U64(entries.TABLE), U64(entries.AF)
_AP1, _AP2, _DBM, _CONT = U64(entries.AP1), U64(entries.AP2), U64(entries.DBM), U64(entries.CONTIGUOUS)
_PXN, _UXN, _NT = U64(entries.PXN), U64(entries.UXN), U64(entries.NT)
_PXNT, _UXNT = U64(permissions.PXN_TABLE), U64(permissions.UXN_TABLE)
_APT0, _APTRO = U64(permissions.APTABLE_EL0), U64(permissions.APTABLE_RO)
_ADDRESS = U64(entries.ADDRESS_48)
_LPA_SHIFT, _LPA2_SHIFT = (U64(shift) for shift in entries.HIGH_SHIFTS)
_IN_PLACE = U64(0b11 << 48)
_ATTR_SHIFT, _MEMATTR_SHIFT, _SH_SHIFT, _FNXS_SHIFT, _XN_SHIFT = (U64(shift) for shift in entries.FIELD_SHIFTS)
_ACCESS_FLAG, _ALIGNMENT, _PERMISSION, _TRANSLATION, _ADDRESS_SIZE, _EXTERNAL = (
    U64(fault)
    for fault in (
        FaultType.ACCESS_FLAG,
        FaultType.ALIGNMENT,
        FaultType.PERMISSION,
        FaultType.TRANSLATION,
        FaultType.ADDRESS_SIZE,
        FaultType.SYNC_EXTERNAL_ON_WALK,
    )
)
_RETRIES = 64
_TOP_BIT = U64(55)
_ALL_RIGHTS = U64(63)
# the recipe of the attributes, see `attributes_of`
_R_SH, _R_OFF, _R_UNCACHED1, _R_S2, _R_MEMATTR, _R_SH2, _R_FNXS, _R_FWB, _R_UNCACHED2 = (
    U64(shift) for shift in (8, 10, 13, 14, 15, 19, 21, 22, 23)
)


@kernel
def _swap(value: Any) -> Any:
    """The bytes of a word reversed."""
    swapped = _0
    for _ in range(8):
        swapped = swapped << _8 | value & U64(255)
        value = value >> _8
    return swapped


@kernel
def _fail(s: Any, fault: Any, level: Any, stage2: Any, walk: Any, ipa: Any) -> Any:
    s[_FAULT], s[_LEVEL], s[_STAGE2], s[_S1PTW], s[_FIPA] = fault, level, stage2, walk, ipa
    return False


@kernel
def _contiguous(granule: Any, level: Any) -> Any:
    """log2 of the number of entries that the Contiguous bit joins (entries.contiguous_log2)."""
    joined = _0
    if granule == U64(12) and level >= _2:
        joined = _4
    elif granule == U64(14) and level == _3:
        joined = U64(5)
    elif granule == U64(14) and level == _4:
        joined = _7
    elif granule == U64(16) and level >= _3:
        joined = U64(5)
    return joined


@kernel
def _high(p: Any, r: Any, o: Any, raw: Any) -> Any:
    """Address bits 51:48 of a descriptor, in place."""
    high = _0
    if p[r, _WIDE + o] != _0:
        high = (raw >> _LPA_SHIFT & _15) << U64(48)
    elif p[r, _DS + o] != _0:
        high = (raw >> _LPA2_SHIFT & _3) << U64(50) | raw & _IN_PLACE
    return high


@kernel
def _first(p: Any, r: Any, o: Any, address: Any) -> Any:
    """The address of the start table's entry."""
    shift = p[r, _G + o] + (_4 - p[r, _START + o]) * p[r, _STRIDE + o]
    inside = address & ((_1 << p[r, _IA + o]) - _1)
    return p[r, _BASE + o] | inside >> shift << _3


@kernel
def _next(p: Any, r: Any, o: Any, raw: Any, level: Any, address: Any) -> Any:
    """The address of the next level's entry."""
    granule, stride = p[r, _G + o], p[r, _STRIDE + o]
    table = (raw & _ADDRESS) >> granule << granule | _high(p, r, o, raw)
    shift = granule + (_4 - (level + _1)) * stride
    return table | (address >> shift & ((_1 << stride) - _1)) << _3


@kernel
def _compose(p: Any, r: Any, o: Any, raw: Any, level: Any, joined: Any, address: Any) -> Any:
    """The output address of a leaf."""
    size = p[r, _G + o] + (_4 - level) * p[r, _STRIDE + o]
    base = (raw & _ADDRESS) >> size << size | _high(p, r, o, raw)
    low = size + joined
    return base >> low << low | address & ((_1 << low) - _1)


@kernel
def _is_leaf(p: Any, r: Any, o: Any, raw: Any, level: Any) -> Any:
    """0 invalid, 1 table, 2 leaf."""
    kind = _0
    if raw & _VALID != _0:
        if raw & _TABLE != _0:
            kind = _2 if level == _4 else _1
        elif level < _4 and level >= p[r, _BLOCK + o] and level >= _1:
            kind = _2
    return kind


@kernel
def _s2_rights(p: Any, r: Any, raw: Any, el0: Any) -> Any:
    """Read, write, execute as bits 0 to 2."""
    rights = _0
    if raw & _AP1 != _0:
        rights |= _1
    managed = p[r, _HA + _S2] != _0 and p[r, _HD + _S2] != _0 and raw & _DBM != _0
    if raw & _AP2 != _0 or managed:
        rights |= _2
    code = raw >> _XN_SHIFT & _3
    if p[r, _XNX] == _0:
        code &= _2
    if code == _0 or (code == _1 and el0) or (code == _3 and not el0):
        rights |= _4
    return rights


@kernel
def _misaligned(p: Any, r: Any) -> Any:
    return p[r, _FETCH] == _0 and (p[r, _ZVA] != _0 or p[r, _ALIGNED] == _0)


@kernel
def _put(view: Any, i: Any, s: Any, p: Any, r: Any, o: Any, pa: Any, old: Any, new: Any, commit: Any) -> Any:
    """Compare and swap a descriptor; False where memory no longer holds `old`."""
    s[_READS] += _1
    _, now = load(view, i, pa)
    big = p[r, _EE + o] != _0
    if (_swap(now) if big else now) != old:
        return False
    s[_WRITES] += _1
    if commit:
        store(view, i, pa, _swap(new) if big else new)
    return True


@kernel
def _s2_device(p: Any, r: Any, raw: Any, s1_device: Any) -> Any:
    memattr = raw >> _MEMATTR_SHIFT & _15
    if p[r, _FWB] != _0:
        if memattr & _4 == _0:
            return True
        return s1_device and memattr & _3 != _2
    return memattr >> _2 == _0


@kernel
def _s2_check(p: Any, r: Any, s: Any, raw: Any, level: Any, ipa: Any, walk: Any, update: Any, s1_device: Any) -> Any:
    """The checks of a stage 2 leaf (stage2._checks); True where it grants the access."""
    size = p[r, _G + _S2] + (_4 - level) * p[r, _STRIDE + _S2]
    joined = _contiguous(p[r, _G + _S2], level) if raw & _CONT != _0 else _0
    out = _compose(p, r, _S2, raw, level, joined, ipa)
    s[_OUT], s[_CONT2] = out, joined
    is_walk = _1 if walk else _0
    if joined != _0 and size + joined > p[r, _IA + _S2] and p[r, _CONTF] != _0:
        return _fail(s, _TRANSLATION, level, _1, is_walk, ipa)
    if level < _4 and raw & _NT != _0 and p[r, _NTF] != _0:
        return _fail(s, _TRANSLATION, level, _1, is_walk, ipa)
    if out >> p[r, _OA + _S2] != _0:
        return _fail(s, _ADDRESS_SIZE, level, _1, is_walk, ipa)
    if raw & _AF == _0 and p[r, _HA + _S2] == _0:
        return _fail(s, _ACCESS_FLAG, level, _1, is_walk, ipa)
    device = _s2_device(p, r, raw, s1_device)
    if not walk:
        s[_LEAF2] = _1
    if device and not walk and _misaligned(p, r):
        return _fail(s, _ALIGNMENT, level, _1, is_walk, ipa)
    el0 = p[r, _EL0] != _0
    rights = _s2_rights(p, r, raw, el0)
    denied = False
    if walk:
        denied = (p[r, _PTW] != _0 and device) or rights & _1 == _0 or (update and rights & _2 == _0)
    elif p[r, _FETCH] != _0:
        denied = rights & _4 == _0
    elif p[r, _CACHEOP] != _0:
        denied = el0 and rights & _1 == _0
    elif p[r, _READ] != _0 and rights & _1 == _0:
        denied = True
        s[_WNR] = _0
    elif p[r, _WRITE] != _0 and rights & _2 == _0:
        denied = True
        s[_WNR] = _1
    if denied:
        return _fail(s, _PERMISSION, level, _1, is_walk, ipa)
    return True


@kernel
def _stage2(
    view: Any, i: Any, s: Any, p: Any, r: Any, ipa: Any, walk: Any, update: Any, s1_device: Any, commit: Any
) -> Any:
    """Translate `ipa` to s[_OUT]; False with the fault in the scratch array (stage2.translate)."""
    is_walk = _1 if walk else _0
    if p[r, _S2ON] == _0:
        s[_OUT] = ipa
        return True
    if p[r, _S2BAD] != _0 or ipa >> p[r, _IA + _S2] != _0:
        return _fail(s, _TRANSLATION, _1, _1, is_walk, ipa)
    level, pa = p[r, _START + _S2], _first(p, r, _S2, ipa)
    if pa >> p[r, _OA + _S2] != _0:
        return _fail(s, _ADDRESS_SIZE, _1, _1, is_walk, ipa)
    raw = _0
    while True:
        ok, raw = load(view, i, pa)
        s[_ENTRY] = pa
        if not ok:
            return _fail(s, _EXTERNAL, level, _1, is_walk, ipa)
        s[_READS] += _1
        if p[r, _EE + _S2] != _0:
            raw = _swap(raw)
        kind = _is_leaf(p, r, _S2, raw, level)
        if kind == _0:
            return _fail(s, _TRANSLATION, level, _1, is_walk, ipa)
        if kind == _2:
            break
        following = _next(p, r, _S2, raw, level, ipa)
        if following >> p[r, _OA + _S2] != _0:
            return _fail(s, _ADDRESS_SIZE, level, _1, is_walk, ipa)
        if p[r, _HAFT + _S2] != _0 and raw & _AF == _0:
            _put(view, i, s, p, r, _S2, pa, raw, raw | _AF, commit)
        level, pa = level + _1, following
    if not walk:
        s[_RAW2], s[_LV2] = raw, level
    if not _s2_check(p, r, s, raw, level, ipa, walk, update, s1_device):
        return False
    new = raw
    if p[r, _HA + _S2] != _0:
        new |= _AF
        writes = update if walk else p[r, _WRITE] != _0 and p[r, _AT] == _0 and p[r, _CACHEOP] == _0
        if writes and p[r, _HD + _S2] != _0 and raw & _DBM != _0:
            new |= _AP2
    if new != raw:
        _put(view, i, s, p, r, _S2, pa, raw, new, commit)
    return True


@kernel
def _s1_rights(p: Any, r: Any, raw: Any, tables: Any, el0: Any, pan: Any) -> Any:
    """Read, write, execute as bits 0 to 2 (permissions._direct)."""
    managed = p[r, _HA] != _0 and p[r, _HD] != _0 and raw & _DBM != _0
    read, write, execute = True, tables & _APTRO == _0 and (raw & _AP2 == _0 or managed), True
    nv1 = p[r, _NV1] != _0
    if p[r, _UNPRIV] == _0:
        execute = raw & _UXN == _0 and tables & _UXNT == _0
    else:
        user = raw & _AP1 != _0 and not nv1 and tables & _APT0 == _0
        user_execute = nv1 or (raw & _UXN == _0 and tables & _UXNT == _0)
        if el0:
            read, write, execute = user, user and write, user_execute
        else:
            own, own_table = (_UXN, _UXNT) if nv1 else (_PXN, _PXNT)
            execute = raw & own == _0 and tables & own_table == _0 and not (user and write)
            if pan and not nv1 and (user or (p[r, _EPAN] != _0 and user_execute)):
                read, write = False, False
    if p[r, _WXN] != _0 and write and execute:
        execute = False
    return (_1 if read else _0) | (_2 if write else _0) | (_4 if execute else _0)


@kernel
def _s1_check(p: Any, r: Any, s: Any, raw: Any, level: Any, tables: Any, va: Any, joined: Any, out: Any) -> Any:
    """The checks of a stage 1 leaf (stage1._checks); True where it grants the access."""
    size = p[r, _G] + (_4 - level) * p[r, _STRIDE]
    if joined != _0 and size + joined > p[r, _IA] and p[r, _CONTF] != _0:
        return _fail(s, _TRANSLATION, level, _0, _0, _0)
    if level < _4 and raw & _NT != _0 and p[r, _NTF] != _0:
        return _fail(s, _TRANSLATION, level, _0, _0, _0)
    if out >> p[r, _OA] != _0:
        return _fail(s, _ADDRESS_SIZE, level, _0, _0, _0)
    if raw & _AF == _0 and p[r, _HA] == _0:
        return _fail(s, _ACCESS_FLAG, level, _0, _0, _0)
    s[_LEAF1] = _1
    attr = p[r, _MAIR] >> (raw >> _ATTR_SHIFT & _7) * _8 & U64(255)
    if attr < _16 and _misaligned(p, r):
        return _fail(s, _ALIGNMENT, level, _0, _0, _0)
    el0 = p[r, _EL0] != _0
    rights = _s1_rights(p, r, raw, tables, el0, p[r, _PANA] != _0)
    denied = False
    if p[r, _FETCH] != _0:
        denied = rights & _4 == _0
    elif p[r, _CACHEOP] != _0:
        denied = el0 and rights & _1 == _0
    elif p[r, _READ] != _0 and rights & _1 == _0:
        denied = True
        s[_WNR] = _0
    elif p[r, _WRITE] != _0 and rights & _2 == _0:
        denied = True
        s[_WNR] = _1
    if denied:
        return _fail(s, _PERMISSION, level, _0, _0, _0)
    return True


@kernel
def _early(p: Any, r: Any, s: Any, va: Any) -> Any:
    """The faults of stage 1 that need no table (stage1._early); True where there is none."""
    failed = p[r, _EARLY] == _1
    if not failed:
        iasize, top = p[r, _IA], p[r, _TOP]
        if top >= iasize:
            width = top + _1 - iasize
            ones = (_1 << width) - _1
            checked = va >> iasize & ones
            upper = p[r, _UNPRIV] != _0 and va >> _TOP_BIT & _1 != _0
            failed = checked != (ones if upper else _0)
    failed = failed or (p[r, _EL0] != _0 and p[r, _E0PD] != _0) or p[r, _EARLY] == _2
    if failed:
        return _fail(s, _TRANSLATION, _1, _0, _0, _0)
    return True


@kernel
def _stage1_off(p: Any, r: Any, s: Any, va: Any) -> Any:
    """Stage 1 disabled (stage1._off)."""
    inside = va if p[r, _TOP] == U64(63) else va & ((_1 << (p[r, _TOP] + _1)) - _1)
    if inside >> p[r, _PAMAX] != _0:
        return _fail(s, _ADDRESS_SIZE, _1, _0, _0, _0)
    if p[r, _OFF] == _4 and _misaligned(p, r):
        return _fail(s, _ALIGNMENT, _1, _0, _0, _0)
    s[_IPA] = va & ((_1 << U64(56)) - _1)
    s[_RECIPE] = p[r, _OFF] << _R_OFF
    return True


@kernel
def _where(view: Any, i: Any, s: Any, p: Any, r: Any, pa: Any, update: Any, commit: Any) -> Any:
    """Where a stage 1 descriptor lies: s[_OUT]; False where stage 2 denies it."""
    if p[r, _TWO] == _0:
        s[_OUT] = pa
        return True
    return _stage2(view, i, s, p, r, pa, True, update, False, commit)


@kernel
def _stage1(view: Any, i: Any, s: Any, p: Any, r: Any, va: Any, commit: Any) -> Any:
    """One attempt at stage 1: 0 fault, 1 done, 2 the leaf changed under the walk (stage1.translate)."""
    level, pa, tables, raw = p[r, _START], _first(p, r, 0, va), _0, _0
    if pa >> p[r, _OA] != _0:
        _fail(s, _ADDRESS_SIZE, _1, _0, _0, _0)
        return 0
    for _ in range(1024):
        if not _where(view, i, s, p, r, pa, False, commit):
            return 0
        s[_ENTRY] = s[_OUT]
        ok, raw = load(view, i, s[_OUT])
        if not ok:
            _fail(s, _EXTERNAL, level, _0, _0, _0)
            return 0
        s[_READS] += _1
        if p[r, _EE] != _0:
            raw = _swap(raw)
        kind = _is_leaf(p, r, 0, raw, level)
        if kind == _0:
            _fail(s, _TRANSLATION, level, _0, _0, _0)
            return 0
        if kind == _2:
            break
        following = _next(p, r, 0, raw, level, va)
        if following >> p[r, _OA] != _0:
            _fail(s, _ADDRESS_SIZE, level, _0, _0, _0)
            return 0
        if p[r, _HAFT] != _0 and raw & _AF == _0:
            if not _where(view, i, s, p, r, pa, True, commit):
                return 0
            if not _put(view, i, s, p, r, 0, s[_OUT], raw, raw | _AF, commit):
                continue
        tables |= raw & p[r, _TMASK]
        level, pa = level + _1, following
    entry = s[_ENTRY]
    joined = _contiguous(p[r, _G], level) if raw & _CONT != _0 else _0
    out = _compose(p, r, 0, raw, level, joined, va)
    s[_RAW1], s[_LV1], s[_CONT1] = raw, level, joined
    if not _s1_check(p, r, s, raw, level, tables, va, joined, out):
        return 0
    new = raw
    if p[r, _HA] != _0:
        new |= _AF
        writes = p[r, _WRITE] != _0 and p[r, _AT] == _0 and p[r, _CACHEOP] == _0
        if writes and p[r, _HD] != _0 and raw & _DBM != _0:
            new &= ~_AP2
    if new != raw:
        if not _where(view, i, s, p, r, pa, True, commit):
            return 0
        if not _put(view, i, s, p, r, 0, s[_OUT], raw, new, commit):
            return 2
    s[_ENTRY], s[_IPA] = entry, out & ((_1 << U64(56)) - _1)
    _stage1_recipe(p, r, s, raw)
    both = _s1_rights(p, r, raw, tables, False, p[r, _PAN] != _0) & _3
    both |= _s1_rights(p, r, raw, tables, False, False) & _4
    if p[r, _UNPRIV] != _0 and p[r, _E0PD] == _0:
        both |= _s1_rights(p, r, raw, tables, True, False) << _3
    s[_RIGHTS] = both
    return 1


@kernel
def _stage1_recipe(p: Any, r: Any, s: Any, raw: Any) -> Any:
    attr = p[r, _MAIR] >> (raw >> _ATTR_SHIFT & _7) * _8 & U64(255)
    sh = p[r, _SH] if p[r, _DS] != _0 else raw >> _SH_SHIFT & _3
    device, fetch = attr < _16, p[r, _FETCH] != _0
    uncached = (fetch and (device or p[r, _IC] == _0)) or (not fetch and not device and p[r, _DC] == _0)
    s[_RECIPE] = attr | sh << _R_SH | (_1 if uncached else _0) << _R_UNCACHED1


@kernel
def _stage2_recipe(p: Any, r: Any, s: Any, s1_device: Any) -> Any:
    raw = s[_RAW2]
    device, fetch = _s2_device(p, r, raw, s1_device), p[r, _FETCH] != _0
    uncached = (fetch and (device or p[r, _ICD] != _0)) or (not fetch and not device and p[r, _CD] != _0)
    sh = p[r, _S2SH] if p[r, _DS + _S2] != _0 else raw >> _SH_SHIFT & _3
    fields = (raw >> _MEMATTR_SHIFT & _15) << _R_MEMATTR | sh << _R_SH2 | (raw >> _FNXS_SHIFT & _1) << _R_FNXS
    s[_RECIPE] |= fields | _1 << _R_S2 | p[r, _FWB] << _R_FWB | (_1 if uncached else _0) << _R_UNCACHED2
    both = _s2_rights(p, r, raw, False) | _s2_rights(p, r, raw, True) << _3
    s[_RIGHTS] &= both


@kernel
def _translate(view: Any, i: Any, s: Any, p: Any, r: Any, va: Any, commit: Any) -> Any:
    """Translate one address; the scratch array says how it went."""
    s[:] = _0
    s[_WNR] = p[r, _WRITE] if p[r, _READ] == _0 else _0
    if p[r, _ON] == _0:
        if not _stage1_off(p, r, s, va):
            return
        s[_RIGHTS] = _ALL_RIGHTS if p[r, _UNPRIV] != _0 else _7
    else:
        if not _early(p, r, s, va):
            return
        done = 2
        for _ in range(_RETRIES):
            done = _stage1(view, i, s, p, r, va, commit)
            if done != 2:
                break
        if done == 0:
            return
    s[_IPAV], s[_PA] = _1, s[_IPA]
    if p[r, _TWO] != _0 and p[r, _S1ONLY] == _0 and p[r, _S2ON] != _0:
        attr = s[_RECIPE] & U64(255)
        off = s[_RECIPE] >> _R_OFF & _7
        uncached = s[_RECIPE] >> _R_UNCACHED1 & _1 != _0
        s1_device = off == _4 or (off == _0 and attr < _16 and not uncached)
        if not _stage2(view, i, s, p, r, s[_IPA], False, False, s1_device, commit):
            return
        s[_PA] = s[_OUT]
        _stage2_recipe(p, r, s, s1_device)


@kernel
def translate_cases(view: Any, p: Any, vas: Any, taken: Any, commit: Any, out: Any) -> Any:
    """Translate case i with row i for every i that is taken; `out` receives the scratch arrays."""
    s = np.zeros(len(SLOTS), np.uint64)
    for i in range(len(vas)):
        if taken[i]:
            _translate(view, U64(i), s, p, i, vas[i], commit)
            out[i, :] = s


@kernel
def _translate_all(
    view: Any, p: Any, halves: Any, kinds: Any, codes: Any, vas: Any, commit: Any, pa: Any, info: Any
) -> Any:
    s = np.zeros(len(SLOTS), np.uint64)
    for k in range(len(vas)):
        va = vas[k]
        r = 1 if halves and va >> _TOP_BIT & _1 != _0 else 0
        _translate(view, _0, s, p, r, va, commit)
        fault = s[_FAULT]
        if fault != _0:
            pa[k] = _0
            level = s[_LEVEL] + U64(255)
            info[k] = (level & U64(255)) << _16 | kinds[fault] << U64(24) | codes[fault, s[_LEVEL]] << U64(32)
        else:
            pa[k] = s[_PA]
            size = U64(12)
            level = U64(NO_LEVEL)
            if s[_LEAF1] != _0:
                size = p[r, _G] + (_4 - s[_LV1]) * p[r, _STRIDE]
                level = s[_LV1] + U64(255)
            if s[_LEAF2] != _0:
                second = p[r, _G + _S2] + (_4 - s[_LV2]) * p[r, _STRIDE + _S2]
                size = min(size, second) if s[_LEAF1] != _0 else second
            info[k] = s[_RIGHTS] | size << _8 | (level & U64(255)) << _16


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

"""What the compiled walks of both stages share: places in a row and in the scratch array, bits, and descriptors.

Levels count from 0 (the manual's -1) to 4 here; faults are numbered as in `FaultType`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arch.arm64.faults import FaultType
from ..kernels.access import load, store
from ..kernels.jit import kernel
from . import entries, permissions
from .rows import INDEX

U64 = np.uint64

_SLOTS = """fault level stage2 s1ptw write fault_ipa out raw2 level2 contig2 reads writes pa ipa ipa_valid raw1 level1
    contig1 recipe rights leaf1 leaf2 entry_pa"""
SLOTS = tuple(_SLOTS.split())
SLOT = {name: i for i, name in enumerate(SLOTS)}


def _places(names: str) -> tuple[int, ...]:
    return tuple(INDEX[name] for name in names.split())


ON, OFF, PAMAX, TOP, UNPRIV, EARLY = _places("on off_recipe pamax top unprivileged early_fault")
SH, MAIR = _places("sh mair")
EPAN, WXN, NV1, TMASK, E0PD, IC, DC = _places("epan wxn nv1 table_mask e0pd icache dcache")
G, STRIDE, IA, START, BASE, OA = _places("granule stride iasize start base oa_size")
HA, HD, HAFT, EE, DS, WIDE, BLOCK = _places("ha hd haft ee ds wide_oa block_low")
S2 = INDEX["s2_granule"] - INDEX["granule"]  # from a geometry column of stage 1 to that of stage 2
TWO, S1ONLY, NTF, CONTF = _places("two_stages stage1_only nt_faults contig_faults")
S2ON, S2BAD, S2SH, PTW, FWB, CD, ICD, XNX = _places("s2_on s2_bad s2_sh s2_ptw s2_fwb s2_cd s2_icd s2_xnx")
FETCH, CACHEOP, ZVA, AT, READ, WRITE = _places("fetch cache_op dc_zva at read write")
EL0, ALIGNED, PANA, PAN = _places("el0 aligned pan_access pan")
(FAULT, LEVEL, STAGE2, S1PTW, WNR, FIPA, OUT, RAW2, LV2, CONT2, READS, WRITES, PA, IPA, IPAV, RAW1) = range(16)
(LV1, CONT1, RECIPE, RIGHTS, LEAF1, LEAF2, ENTRY) = range(16, 23)

_0, _1, _2, _3, _4, _7, _8, _15 = (U64(n) for n in (0, 1, 2, 3, 4, 7, 8, 15))
VALID, TABLE, AF = U64(entries.VALID), U64(entries.TABLE), U64(entries.AF)
AP1, AP2, DBM, CONT = U64(entries.AP1), U64(entries.AP2), U64(entries.DBM), U64(entries.CONTIGUOUS)
PXN, UXN, NT = U64(entries.PXN), U64(entries.UXN), U64(entries.NT)
PXNT, UXNT = U64(permissions.PXN_TABLE), U64(permissions.UXN_TABLE)
APT0, APTRO = U64(permissions.APTABLE_EL0), U64(permissions.APTABLE_RO)
ADDRESS = U64(entries.ADDRESS_48)
LPA_SHIFT, LPA2_SHIFT = (U64(shift) for shift in entries.HIGH_SHIFTS)
IN_PLACE = U64(0b11 << 48)
ATTR_SHIFT, MEMATTR_SHIFT, SH_SHIFT, FNXS_SHIFT, XN_SHIFT = (U64(shift) for shift in entries.FIELD_SHIFTS)
ACCESS_FLAG, ALIGNMENT, PERMISSION, TRANSLATION, ADDRESS_SIZE, EXTERNAL = (
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
RETRIES = 64
TOP_BIT = U64(55)
ALL_RIGHTS = U64(63)
# the recipe of the attributes, see `attributes_of`
R_SH, R_OFF, R_UNCACHED1, R_S2, R_MEMATTR, R_SH2, R_FNXS, R_FWB, R_UNCACHED2 = (
    U64(shift) for shift in (8, 10, 13, 14, 15, 19, 21, 22, 23)
)


@kernel
def byte_swapped(value: Any) -> Any:
    """The bytes of a word reversed."""
    swapped = _0
    for _ in range(8):
        swapped = swapped << _8 | value & U64(255)
        value = value >> _8
    return swapped


@kernel
def fail(s: Any, fault: Any, level: Any, stage2: Any, walk: Any, ipa: Any) -> Any:
    s[FAULT], s[LEVEL], s[STAGE2], s[S1PTW], s[FIPA] = fault, level, stage2, walk, ipa
    return False


@kernel
def contiguous_log2(granule: Any, level: Any) -> Any:
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
def high_bits(p: Any, r: Any, o: Any, raw: Any) -> Any:
    """Address bits 51:48 of a descriptor, in place."""
    high = _0
    if p[r, WIDE + o] != _0:
        high = (raw >> LPA_SHIFT & _15) << U64(48)
    elif p[r, DS + o] != _0:
        high = (raw >> LPA2_SHIFT & _3) << U64(50) | raw & IN_PLACE
    return high


@kernel
def first_entry(p: Any, r: Any, o: Any, address: Any) -> Any:
    """The address of the start table's entry."""
    shift = p[r, G + o] + (_4 - p[r, START + o]) * p[r, STRIDE + o]
    inside = address & ((_1 << p[r, IA + o]) - _1)
    return p[r, BASE + o] | inside >> shift << _3


@kernel
def next_entry(p: Any, r: Any, o: Any, raw: Any, level: Any, address: Any) -> Any:
    """The address of the next level's entry."""
    granule, stride = p[r, G + o], p[r, STRIDE + o]
    table = (raw & ADDRESS) >> granule << granule | high_bits(p, r, o, raw)
    shift = granule + (_4 - (level + _1)) * stride
    return table | (address >> shift & ((_1 << stride) - _1)) << _3


@kernel
def output_address(p: Any, r: Any, o: Any, raw: Any, level: Any, joined: Any, address: Any) -> Any:
    """The output address of a leaf."""
    size = p[r, G + o] + (_4 - level) * p[r, STRIDE + o]
    base = (raw & ADDRESS) >> size << size | high_bits(p, r, o, raw)
    low = size + joined
    return base >> low << low | address & ((_1 << low) - _1)


@kernel
def kind_of(p: Any, r: Any, o: Any, raw: Any, level: Any) -> Any:
    """0 invalid, 1 table, 2 leaf."""
    kind = _0
    if raw & VALID != _0:
        if raw & TABLE != _0:
            kind = _2 if level == _4 else _1
        elif level < _4 and level >= p[r, BLOCK + o] and level >= _1:
            kind = _2
    return kind


@kernel
def misaligned(p: Any, r: Any) -> Any:
    return p[r, FETCH] == _0 and (p[r, ZVA] != _0 or p[r, ALIGNED] == _0)


@kernel
def exchange(view: Any, i: Any, s: Any, p: Any, r: Any, o: Any, pa: Any, old: Any, new: Any, commit: Any) -> Any:
    """Compare and swap a descriptor; False where memory no longer holds `old`."""
    s[READS] += _1
    _, now = load(view, i, pa)
    big = p[r, EE + o] != _0
    if (byte_swapped(now) if big else now) != old:
        return False
    s[WRITES] += _1
    if commit:
        store(view, i, pa, byte_swapped(new) if big else new)
    return True

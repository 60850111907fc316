"""Descriptors as the walk reads them: type, next table, leaf address, permission and attribute fields.

The bit positions come from the declarations in arch/arm64/descriptors.py. 64-bit kinds share the place of every
field used here, as do the two 128-bit ones.
"""

from __future__ import annotations

from enum import Enum

from ...arch.arm64.descriptors import LAYOUTS, layout_for
from ...arch.layout import Layout
from .params import FINAL_LEVEL, GRANULE_NAMES, Geometry

_PAGE, _TABLE, _S2 = LAYOUTS["PAGE_4K"], LAYOUTS["TABLE_4K"], LAYOUTS["S2_PAGE_4K"]
_BLOCK, _LPA, _LPA2 = LAYOUTS["BLOCK_4K"], LAYOUTS["PAGE_64K_LPA"], LAYOUTS["PAGE_4K_LPA2"]
_D128, _D128_TABLE, _D128_S2 = LAYOUTS["D128_LEAF"], LAYOUTS["D128_TABLE"], LAYOUTS["D128_S2_LEAF"]

VALID, TABLE = _PAGE.mask("valid"), _PAGE.mask("page")
AF = _PAGE.mask("AF")
AP2 = 0b10 << _PAGE["AP"].shift  # stage 1: 1 = read-only (nDirty with permission indirection); stage 2: writable, dirty
S2_DIRTY = AP2
AP1 = 0b01 << _PAGE["AP"].shift
DBM, CONTIGUOUS, NG = _PAGE.mask("DBM"), _PAGE.mask("Contiguous"), _PAGE.mask("nG")
PXN, UXN, GP = _PAGE.mask("PXN"), _PAGE.mask("UXN"), _PAGE.mask("GP")
NT = _BLOCK.mask("nT")
D128_NT, D128_CONTIGUOUS, D128_GP = _D128.mask("nT"), _D128.mask("Contiguous"), _D128.mask("GP")
DISCH = _D128_TABLE.mask("DisCH")
D128_SKL = _D128["SKL"]
ADDRESS_48 = (1 << 48) - 1
# for the compiled walker: where address bits 51:48 stand with LPA, 51:50 with LPA2; AttrIndx, MemAttr, SH, FnXS, XN
HIGH_SHIFTS = (_LPA["OA_51_48"].shift, _LPA2["OA_51_50"].shift)
FIELD_SHIFTS = tuple(f.shift for f in (_PAGE["AttrIndx"], _S2["MemAttr"], _PAGE["SH"], _S2["FnXS"], _S2["XN"]))


class Kind(Enum):
    """What the type bits of a descriptor make it (AArch64_DecodeDescriptorType)."""

    INVALID, TABLE, LEAF = range(3)


def field(layout64: str, name64: str, layout128: str, name128: str) -> tuple[int, int, int]:
    """Shift in a 64-bit descriptor, shift in a 128-bit one, and the mask of a field once shifted down."""
    first, second = LAYOUTS[layout64][name64], LAYOUTS[layout128][name128]
    return first.shift, second.shift, (1 << second.width) - 1


_NSTABLE = field("TABLE_4K", "NSTable", "D128_TABLE", "NSTable")
_TABLE_PROTECTED = field("TABLE_4K", "Protected", "D128_TABLE", "Protected")
_NS = field("PAGE_4K", "NS", "D128_LEAF", "NS")
_S2_NS = field("S2_PAGE_4K", "NS", "D128_S2_LEAF", "NS")


def ns_table(raw: int, d128: bool) -> int:
    """NSTable of a stage 1 table descriptor."""
    return raw >> _NSTABLE[d128] & 1


def protected(raw: int, d128: bool) -> int:
    """The Protected bit (FEAT_THE); in a 64-bit descriptor it is the Contiguous bit's place."""
    return raw >> _TABLE_PROTECTED[d128] & 1


def ns(raw: int, d128: bool) -> int:
    """NS of a stage 1 leaf."""
    return raw >> _NS[d128] & 1


def s2_ns(raw: int, d128: bool) -> int:
    """NS of a stage 2 leaf (Realm state)."""
    return raw >> _S2_NS[d128] & 1


def attribute_index(raw: int, d128: bool, indexed_by_four: bool) -> int:
    """AttrIndx of a stage 1 leaf; with FEAT_AIE it has four bits and reaches MAIR2_ELx."""
    if d128:
        return _D128["AttrIndx"].get(raw) & (15 if indexed_by_four else 7)
    return _PAGE["AttrIndx"].get(raw) | (_PAGE["AttrIndx_3"].get(raw) << 3 if indexed_by_four else 0)


def shareability(raw: int) -> int:
    """The SH field."""
    return _PAGE["SH"].get(raw)


def memattr(raw: int) -> int:
    """MemAttr of a stage 2 leaf."""
    return _S2["MemAttr"].get(raw)


def fnxs(raw: int) -> int:
    """FnXS of a stage 2 leaf."""
    return _S2["FnXS"].get(raw)


def block_supported(params: Geometry, level: int) -> bool:
    """Whether a 64-bit block descriptor may stand at `level` (AArch64_BlockDescSupported)."""
    if params.granule == 12:
        return level in (1, 2) or (level == 0 and params.ds)
    if params.granule == 14:
        return level == 2 or (level == 1 and params.ds)
    return level == 2 or (level == 1 and params.pamax >= 52)


def kind_of(params: Geometry, raw: int, level: int, any_block: bool = False) -> Kind:
    """What `raw`, found at `level`, is; `any_block` accepts blocks wherever a table may stand."""
    if not raw & VALID:
        return Kind.INVALID
    if params.d128:
        skl = D128_SKL.get(raw)
        if skl == 3 and params.granule != 12:
            return Kind.INVALID
        effective = level + skl
        return Kind.INVALID if effective > FINAL_LEVEL else Kind.LEAF if effective == FINAL_LEVEL else Kind.TABLE
    if raw & TABLE:
        return Kind.LEAF if level == FINAL_LEVEL else Kind.TABLE
    allowed = level < FINAL_LEVEL if any_block else block_supported(params, level)
    return Kind.LEAF if allowed else Kind.INVALID


def _high_address(params: Geometry, raw: int) -> int:
    """Address bits 55:48 of a table or leaf descriptor, in place."""
    if params.d128:
        return raw & 0xFF << 48
    if params.granule == 16:
        return _LPA["OA_51_48"].get(raw) << 48 if params.lpa else 0
    if params.ds:
        return _LPA2["OA_51_50"].get(raw) << 50 | raw & 0b11 << 48
    return 0


def table_address(params: Geometry, raw: int) -> int:
    """The next-level table's address (AArch64_NextTableBase)."""
    return (raw & ADDRESS_48) >> params.granule << params.granule | _high_address(params, raw)


def leaf_address(params: Geometry, raw: int, level: int) -> int:
    """The address in a leaf at `level`, bits below the leaf's size dropped (AArch64_LeafBase)."""
    size = params.shift(level)
    return (raw & ADDRESS_48) >> size << size | _high_address(params, raw)


# (D128, granule): level -> log2 of the number of entries that the Contiguous bit joins (ContiguousSize)
_CONTIGUOUS = {
    (False, 12): {1: 4, 2: 4, 3: 4},
    (False, 14): {2: 5, 3: 7},
    (False, 16): {2: 5, 3: 5},
    (True, 12): {1: 2, 2: 4, 3: 4},
    (True, 14): {1: 2, 2: 4, 3: 6},
    (True, 16): {2: 6, 3: 4},
}


def contiguous_log2(params: Geometry, raw: int, level: int) -> int:
    """log2 of the number of entries that the Contiguous bit of `raw` joins at `level`; 0 where it is clear or ignored.

    >>> from .params import Geometry
    >>> off = dict.fromkeys(("d128", "ds", "ha", "hd", "haft", "ee"), False)
    >>> four_k = Geometry(granule=12, txsz=16, ps=5, ttbr=0, **off)
    >>> contiguous_log2(four_k, CONTIGUOUS | 3, 3), contiguous_log2(four_k, CONTIGUOUS | 1, 0)
    (4, 0)
    """
    if not raw & (D128_CONTIGUOUS if params.d128 else CONTIGUOUS):
        return 0
    return _CONTIGUOUS[params.d128, params.granule].get(level, 0)


def is_not_translated(params: Geometry, raw: int) -> bool:
    """The nT bit (FEAT_BBM)."""
    return bool(raw & (D128_NT if params.d128 else NT))


def layout_of(params: Geometry, raw: int, level: int, stage: int) -> Layout:
    """The declaration that decodes `raw`, for people."""
    if not raw & VALID:
        return LAYOUTS["INVALID"]
    kind = kind_of(params, raw, level)
    if params.d128:
        name = "D128_" if stage == 1 else "D128_S2_"
        return LAYOUTS[name + ("TABLE" if kind is Kind.TABLE else "LEAF")]
    if kind is Kind.INVALID:
        return LAYOUTS["INVALID"]
    form = "LPA2" if params.ds else "LPA" if params.lpa and params.granule == 16 else ""
    if kind is Kind.LEAF and level < 2 and params.granule == 16:
        form = "LPA"
    return layout_for(GRANULE_NAMES[params.granule], form, level, table=kind is Kind.TABLE, stage=stage)

"""Break-before-make: may a live descriptor be overwritten, or has it to be invalid for a while (Arm ARM D8.16.1).

`check` is a pure function of the old and the new descriptor, the level and what the processor supports. Everything a
translation lookaside buffer could hold in two contradictory forms needs the break: another address, memory type,
cacheability or shareability, another size of the mapping (block, table, Contiguous), a global entry over a non-global
one. Permissions, the access flag, dirty state and software bits may change live.
"""

from __future__ import annotations

from typing import NamedTuple

from . import attributes, entries
from .entries import Kind
from .params import FINAL_LEVEL, Geometry, S1Params


class Verdict(NamedTuple):
    """`allowed`: the new descriptor may be written over the old. `reason` says why, or why not, in a sentence.

    `flush`: TLB entries have to be invalidated for the change to take effect everywhere.
    """

    allowed: bool
    flush: bool
    reason: str


def check(old: int, new: int, level: int, params: Geometry, *, bbm_level: int = 0, stage: int = 1) -> Verdict:
    """Whether `old` at `level` may be replaced by `new` while translations use it.

    `params` gives granule and descriptor format, and for stage 1 the memory attributes (`S1Params.mair`).
    `bbm_level` is the support level of FEAT_BBM: at 1 a size may change live while nT is set, at 2 without (a TLB
    conflict abort may be the answer to an access meanwhile).

    >>> off = dict.fromkeys(("d128", "ds", "ha", "hd", "haft", "ee"), False)
    >>> four_k = Geometry(granule=12, txsz=16, ps=5, ttbr=0, **off)
    >>> check(0x4000_0743, 0x4000_07C3, 3, four_k).reason
    'only AP changes'
    >>> check(0x4000_0743, 0x4000_1743, 3, four_k).reason
    'the output address changes from 0x0000000040000000 to 0x0000000040001000'
    """
    before, after = (entries.kind_of(params, raw, level) for raw in (old, new))
    if old == new:
        return Verdict(True, False, "nothing changes")
    if before is Kind.INVALID:
        return Verdict(True, False, "the old descriptor is invalid and is never cached")
    if after is Kind.INVALID:
        return Verdict(True, True, "the new descriptor is invalid")
    if before is not after:
        block = old if before is Kind.LEAF else new
        return _size_change(entries.is_not_translated(params, block), bbm_level, _becomes(before, after))
    if before is Kind.TABLE:
        return _table_change(old, new, params, level, stage)
    return _leaf_change(old, new, params, level, bbm_level, stage)


def _becomes(before: Kind, after: Kind) -> str:
    names = ["table" if kind is Kind.TABLE else "block" for kind in (before, after)]
    return f"a {names[0]} becomes a {names[1]}"


def _size_change(marked: bool, bbm_level: int, what: str) -> Verdict:
    """Block against table, or the Contiguous bit: what FEAT_BBM is about."""
    if bbm_level >= 2:
        return Verdict(True, True, f"{what}, which FEAT_BBM level 2 supports if nothing else changes below it")
    if bbm_level == 1 and marked:
        return Verdict(True, True, f"{what} with nT set, which FEAT_BBM level 1 supports if nothing else changes")
    return Verdict(False, True, f"{what}, so that the size of the translation changes")


def _table_change(old: int, new: int, params: Geometry, level: int, stage: int) -> Verdict:
    first, second = (entries.table_address(params, raw) for raw in (old, new))
    if first != second:
        return Verdict(False, True, f"the next-level table moves from {first:#018x} to {second:#018x}")
    if params.d128 and entries.D128_SKL.get(old) != entries.D128_SKL.get(new):
        return Verdict(False, True, "SKL changes, so that the next-level table is another one")
    return Verdict(True, True, _only(old, new, params, level, stage))


def _leaf_change(old: int, new: int, params: Geometry, level: int, bbm_level: int, stage: int) -> Verdict:
    first, second = (entries.leaf_address(params, raw, level) for raw in (old, new))
    if first != second:
        return Verdict(False, True, f"the output address changes from {first:#018x} to {second:#018x}")
    reason = _type_change(old, new, params, stage)
    if reason:
        return Verdict(False, True, reason)
    ns = entries.ns if stage == 1 else entries.s2_ns
    if ns(old, params.d128) != ns(new, params.d128):
        return Verdict(False, True, "NS changes, so that the output address space changes")
    if stage == 1 and old & entries.NG and not new & entries.NG:
        return Verdict(False, True, "a global entry replaces a non-global one (nG 1 to 0)")
    joined = [entries.contiguous_log2(params, raw, level) for raw in (old, new)]
    if joined[0] != joined[1]:
        marked = level < FINAL_LEVEL and any(entries.is_not_translated(params, raw) for raw in (old, new))
        return _size_change(marked, bbm_level, f"Contiguous is {'set' if joined[1] else 'cleared'}")
    return Verdict(True, _stale(old, new), _only(old, new, params, level, stage))


def _stale(old: int, new: int) -> bool:
    """Whether TLBs may hold what no longer is; an entry without the access flag is never cached."""
    return bool(old & entries.AF) and old != new


def _type_change(old: int, new: int, params: Geometry, stage: int) -> str:
    """How memory type, cacheability or shareability differ, in words; nothing where they do not."""
    if stage == 2:
        if entries.memattr(old) != entries.memattr(new):
            return f"MemAttr changes from {entries.memattr(old):#06b} to {entries.memattr(new):#06b}"
    else:
        reason = _attribute_change(old, new, params)
        if reason:
            return reason
    shared = [entries.shareability(raw) for raw in (old, new)]
    if shared[0] != shared[1] and not params.ds:
        return f"SH changes from {shared[0]:#04b} to {shared[1]:#04b}"
    return ""


_TAGGED, _UNTAGGED = 0xF0, 0xFF


def _attribute_change(old: int, new: int, params: Geometry) -> str:
    aie = isinstance(params, S1Params) and params.aie
    first, second = (entries.attribute_index(raw, params.d128, aie) for raw in (old, new))
    if first == second:
        return ""
    if not isinstance(params, S1Params):
        return f"AttrIndx changes from {first} to {second}"
    bytes_ = [params.mair >> 8 * index & 0xFF for index in (first, second)]
    if bytes_[0] == bytes_[1] or set(bytes_) == {_TAGGED, _UNTAGGED}:
        return ""  # the same memory, or Normal with and without tags
    told = [attributes.decode_mair(byte, attributes.Shareability.NSH).text() for byte in bytes_]
    return f"the memory type changes from {told[0]} to {told[1]}"


def _only(old: int, new: int, params: Geometry, level: int, stage: int) -> str:
    """Which fields change, all of them harmless."""
    layout = entries.layout_of(params, old, level, stage)
    names = [name for name, part in layout.items() if part.get(old) != part.get(new)]
    return f"only {', '.join(names)} {'changes' if len(names) == 1 else 'change'}"

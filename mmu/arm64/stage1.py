"""Stage 1: a virtual address to an intermediate or physical one (Arm ARM D8.2; AArch64_S1Translate, AArch64_S1Walk)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...arch.arm64.faults import FaultType
from ..walk import Rights, Step
from . import attributes, denials, entries, gpt, permissions, stage2
from .access import PASpace
from .attributes import MemAttrs
from .context import Abort, Context, FaultRecord, LeafInfo, Steps, first_fault, read_descriptor, swap_descriptor
from .entries import AF, Kind
from .params import FINAL_LEVEL, S1Params
from .permissions import S1Leaf
from .stage2 import RETRIES, checked_address, compose, drop_high, fail, leaf_base, misaligned, out_of_range

LINUX_NAMES = {-1: "PGD", 0: "P4D", 1: "PUD", 2: "PMD", 3: "PTE"}


class Output(NamedTuple):
    """Where stage 1 led; `params` and `leaf` are None while it is off."""

    pa: int
    space: PASpace
    attrs: MemAttrs
    assured: bool = False
    params: S1Params | None = None
    leaf: S1Leaf | None = None


@dataclass(slots=True)
class _Walk:
    """The state of a stage 1 walk between two descriptors."""

    level: int
    pa: int
    space: PASpace
    tables: int
    blame: dict[int, int]
    assured: bool
    disch: bool


@dataclass(slots=True)
class _Found:
    """The leaf a stage 1 walk ended at."""

    leaf: S1Leaf
    info: LeafInfo
    base: int
    table_space: PASpace
    attrs: MemAttrs
    assured: bool
    ipa: int  # where the descriptor lies, before stage 2


def translate(ctx: Context) -> Steps[Output]:
    """Translate the VA of the context; aborts with the stage 1 fault."""
    if not ctx.system.stage1_on(ctx.regime):
        return _off(ctx)
    params = ctx.system.stage1(ctx.regime, ctx.va)
    early = first_fault(_early(ctx, params))
    if early is not None:
        raise Abort(early)
    for _ in range(RETRIES):
        found = yield from _walk(ctx, params)
        fault = first_fault(_checks(ctx, params, found))
        if fault is not None and fault.fault not in (FaultType.ALIGNMENT, FaultType.PERMISSION):
            raise Abort(fault)
        ctx.detail.s1_leaf = found.info
        old, new = found.leaf.raw, _updated(ctx, params, found.leaf.raw, fault)
        if new == old or (yield from _update(ctx, params, found, old, new)):
            break
    if fault is not None:
        raise Abort(fault)
    return _output(ctx, params, found)


def _record(ctx: Context, fault: FaultType, level: int, rule: str, bit: str = "") -> FaultRecord:
    return FaultRecord(fault, level, ctx.default_write, rule=rule, bit=bit)


def _off(ctx: Context) -> Output:
    """Stage 1 disabled: a flat mapping (AArch64_S1DisabledOutput)."""
    params = ctx.system.stage1(ctx.regime, ctx.va)
    fetch = ctx.acctype == "IFETCH"
    if params.default_cacheable:
        attrs = attributes.DEFAULT_CACHEABLE
    elif fetch:
        attrs = attributes.OFF_FETCH_CACHED if params.icache else attributes.NORMAL_NC
    else:
        attrs = attributes.OFF_DEVICE
    top = _address_top(ctx, params)
    va = ctx.va
    if params.mtx and not params.tbi and (params.default_cacheable or not fetch):
        upper = va >> 55 & 1 and (params.default_cacheable or ctx.regime.unprivileged)
        va = va & ~(15 << 56) | (15 << 56 if upper else 0)
    if (va & (1 << top + 1) - 1) >> ctx.system.features.pamax:
        bit = f"VA beyond the {ctx.system.features.pamax} implemented address bits"
        raise Abort(_record(ctx, FaultType.ADDRESS_SIZE, 0, "S1DisabledOutput", bit))
    if attrs.device >= 0 and misaligned(ctx):
        bit = f"SCTLR_EL{ctx.regime.el}.M=0 (Device)"
        raise Abort(_record(ctx, FaultType.ALIGNMENT, 0, "S1HasAlignmentFault", bit))
    return Output(ctx.va & (1 << 56) - 1, ctx.security, attrs)


def _address_top(ctx: Context, params: S1Params) -> int:
    """The highest address bit that counts (AArch64_AddrTop)."""
    tagged = params.tbi and not (params.tbid and ctx.acctype == "IFETCH")
    return 55 if tagged else 63


def _early(ctx: Context, params: S1Params) -> Iterator[FaultRecord]:
    """The faults that need no table, in order: TxSZ, address range, E0PD, NFD, EPD."""
    tcr, n = params.tcr, params.upper
    if params.txsz_fault:
        yield _record(ctx, FaultType.TRANSLATION, 0, "S1TxSZFaults", f"{tcr}.T{n}SZ {params.txsz_fault}")
    elif _va_out_of_range(ctx, params):
        bit = f"VA bits above bit {params.iasize - 1} ({tcr}.T{n}SZ={params.txsz}, TBI={int(params.tbi)})"
        yield _record(ctx, FaultType.TRANSLATION, 0, "VAIsOutOfRange", bit)
    if ctx.el == 0 and params.e0pd:
        yield _record(ctx, FaultType.TRANSLATION, 0, "S1Translate", f"{tcr}.E0PD{n}")
    if ctx.el == 0 and params.nfd and ctx.access.non_fault:
        yield _record(ctx, FaultType.TRANSLATION, 0, "S1Translate", f"{tcr}.NFD{n}")
    if params.epd:
        yield _record(ctx, FaultType.TRANSLATION, 0, "S1EPD", f"{tcr}.EPD{n}")


def _va_out_of_range(ctx: Context, params: S1Params) -> bool:
    va, top = ctx.va, _address_top(ctx, params)
    upper = bool(params.regime.unprivileged and va >> 55 & 1)
    if params.mtx:
        va = va & ~(15 << 56) | (15 << 56 if va >> 55 & 1 else 0)
    if top < params.iasize:
        return False
    checked = (va & (1 << top + 1) - 1) >> params.iasize
    return checked != ((1 << top + 1 - params.iasize) - 1 if upper else 0)


def _ipa_read(
    ctx: Context, params: S1Params, pa: int, space: PASpace, level: int, update: bool
) -> Steps[stage2.Output]:
    """Where a descriptor really lies: through stage 2 where there is one."""
    if not ctx.system.two_stages(ctx.regime):
        return stage2.Output(pa, space, attributes.NORMAL_NC)
    top = level == params.start_level and not update
    request = stage2.Request(
        pa, space, attributes.NORMAL_NC, True, update=update, top_level=top, upper=params.upper, s1_level=level
    )
    try:
        return (yield from stage2.translate(ctx, request))
    except Abort as abort:
        if "s1ptw-is-translation" in ctx.system.deviates:
            abort.record.fault = FaultType.TRANSLATION
        raise


def _walk(ctx: Context, params: S1Params) -> Steps[_Found]:
    """From the start table to a leaf (AArch64_S1Walk)."""
    start = params.require_start()
    index = (ctx.va & (1 << params.iasize) - 1) >> params.shift(start)
    pa = params.base | index << params.desc_log2
    if out_of_range(ctx, pa, params.oa_size):
        root = f"TTBR{params.upper}_EL{params.regime.el}.BADDR"
        bit = f"{root} beyond the {params.oa_size} bits of {params.tcr}.{_ps(params)}"
        raise Abort(_record(ctx, FaultType.ADDRESS_SIZE, 0, "S1Walk", bit))
    walk = _Walk(start, pa, ctx.security, 0, {}, params.d128 or params.pnch, params.disch)
    size = 1 << params.desc_log2
    any_block = "any-block-level" in ctx.system.deviates
    while True:
        record = _record(ctx, FaultType.NONE, walk.level, "")
        at = yield from _ipa_read(ctx, params, walk.pa, walk.space, walk.level, False)
        params.require(walk.level)
        yield from gpt.check(ctx, at.pa, at.space, record, on_walk=True)
        raw = read_descriptor(ctx, at.pa, size, params.ee, record)
        record.entry_pa, record.entry = at.pa, raw
        kind = entries.kind_of(params, raw, walk.level, any_block and walk.level >= 0)
        if kind is Kind.INVALID:
            yield _step(params, walk, raw, at.pa, "invalid")
            fail(record, FaultType.TRANSLATION, "DecodeDescriptorType", "valid" if not raw & 1 else "descriptor type")
        if kind is Kind.LEAF:
            found = _leaf(ctx, params, walk, raw, at)
            rights = Rights(sum(r for r in Rights if denials.allows(ctx, params, found.leaf, r)))
            yield replace(_step(params, walk, raw, at.pa, "leaf"), rights=rights)
            return found
        yield from _next_table(ctx, params, walk, raw, at, record)


def _ps(params: S1Params) -> str:
    return "IPS" if params.regime.unprivileged else "PS"


def _next_table(
    ctx: Context, params: S1Params, walk: _Walk, raw: int, at: stage2.Output, record: FaultRecord
) -> Steps[None]:
    """Take in a table descriptor and move on to the entry it leads to (AArch64_S1NextWalkStateTable)."""
    skl = entries.D128_SKL.get(raw) if params.d128 else 0
    level = walk.level + 1 + skl
    table = drop_high(ctx, params, entries.table_address(params, raw))
    index = ctx.va >> params.shift(level) & (1 << params.stride * (1 + skl)) - 1
    following = table | index << params.desc_log2
    yield _step(params, walk, raw, at.pa, "table")
    if out_of_range(ctx, following, params.oa_size):
        bit = f"NLTA beyond the {params.oa_size} bits of {params.tcr}.{_ps(params)}"
        fail(record, FaultType.ADDRESS_SIZE, "OAOutOfRange", bit)
    if skl and entries.is_not_translated(params, raw) and ctx.nt_faults():
        fail(record, FaultType.TRANSLATION, "BlocknTFaults", "nT")
    if params.haft and not raw & AF:
        update = yield from _ipa_read(ctx, params, walk.pa, walk.space, level, True)
        yield from gpt.check(ctx, update.pa, update.space, record, on_walk=True)
        if not swap_descriptor(ctx, update.pa, 1 << params.desc_log2, params.ee, raw, raw | AF):
            return  # it changed meanwhile: look at it again
    if not (params.hpd or params.pie):
        for flag in _hierarchical(params, raw):
            walk.tables |= flag
            walk.blame.setdefault(flag, walk.level)
    if walk.space is PASpace.Secure and entries.ns_table(raw, params.d128):
        walk.space = PASpace.NonSecure
    has_protected = params.d128 or params.pnch
    walk.assured = walk.assured and at.mostly_read_only and bool(has_protected and entries.protected(raw, params.d128))
    walk.disch = params.d128 and bool(raw & entries.DISCH)
    walk.level, walk.pa = level, following


_APTABLE_EL0, _APTABLE_RO = permissions.APTABLE_EL0, permissions.APTABLE_RO
_ALL_TABLE_BITS = (permissions.PXN_TABLE, permissions.UXN_TABLE, _APTABLE_EL0, _APTABLE_RO)


def _hierarchical(params: S1Params, raw: int) -> Iterator[int]:
    """The hierarchical permission bits that a table descriptor sets, of those the regime knows."""
    for bit in _ALL_TABLE_BITS:
        one_range = not params.regime.unprivileged or params.nv1
        if raw & bit and not (one_range and bit in (permissions.PXN_TABLE, _APTABLE_EL0)):
            yield bit


def _step(params: S1Params, walk: _Walk, raw: int, pa: int, note: str) -> Step:
    level = walk.level
    linux = "PGD" if level == params.start_level else LINUX_NAMES.get(level, "")
    rights = Rights(63)
    if walk.tables & _APTABLE_RO:
        rights &= ~(Rights.KW | Rights.UW)
    if walk.tables & _APTABLE_EL0:
        rights &= ~(Rights.UR | Rights.UW)
    if walk.tables & permissions.UXN_TABLE:
        rights &= ~Rights.UX
    if walk.tables & permissions.PXN_TABLE:
        rights &= ~Rights.KX
    return Step(rule="S1Walk", note=note, level=level, name=f"L{level}", linux_name=linux, pa=pa, raw=raw,
                kind=entries.layout_of(params, raw, level, 1), rights=rights, source="Arm ARM D8.2.8")  # fmt: skip


def _leaf_space(params: S1Params, walk: _Walk, raw: int) -> PASpace:
    """The output address space (AArch64_S1NextWalkStateLeaf)."""
    ns = entries.ns(raw, params.d128)
    if walk.space is PASpace.Secure:
        return PASpace.NonSecure if ns else PASpace.Secure
    if walk.space is PASpace.Root:
        nse = bool(raw & entries.NG)  # NSE stands where nG does
        return (PASpace.Secure, PASpace.NonSecure, PASpace.Root, PASpace.Realm)[nse << 1 | ns]
    if walk.space is PASpace.Realm and not (params.regime.el == 2 and ns):
        return PASpace.Realm
    return PASpace.NonSecure


def _leaf(ctx: Context, params: S1Params, walk: _Walk, raw: int, at: stage2.Output) -> _Found:
    """Take in a block or page descriptor (AArch64_S1NextWalkStateLeaf)."""
    d128, level = params.d128, walk.level
    space = _leaf_space(params, walk, raw)
    if space is PASpace.Secure and walk.space is PASpace.Root and not ctx.system.has_secure_state:
        space = PASpace.NonSecure
    index = entries.attribute_index(raw, d128, params.aie)
    sh = params.sh if params.ds and not d128 else entries.shareability(raw)
    attrs = attributes.decode_mair(params.mair >> 8 * index & 0xFF, attributes.decode_shareability(sh))
    has_protected = d128 or params.pnch
    assured = walk.assured and at.mostly_read_only and bool(has_protected and entries.protected(raw, d128))
    contiguous = 0 if params.pnch or walk.disch else entries.contiguous_log2(params, raw, level)
    secure_to_ns = ctx.security is PASpace.Secure and walk.space is PASpace.NonSecure
    ng = int(params.regime.unprivileged and (secure_to_ns or bool(raw & entries.NG)))
    guarded = int(bool(raw & (entries.D128_GP if d128 else entries.GP)))
    info = LeafInfo(level, raw, at.pa, params.shift(level), contiguous, ng, guarded)
    leaf = S1Leaf(raw, space, walk.tables, walk.blame)
    base = leaf_base(ctx, params, raw, level)
    return _Found(leaf, info, base, walk.space, attrs, assured, walk.pa)


def _checks(ctx: Context, params: S1Params, found: _Found) -> Iterator[FaultRecord]:
    """Every check of the leaf and of the access that fails, in the architecture's order."""
    info, choices = found.info, ctx.system.choices

    def failed(fault: FaultType, rule: str, bit: str) -> FaultRecord:
        record = _record(ctx, fault, info.level, rule, bit)
        record.entry_pa, record.entry = info.entry_pa, info.raw
        return record

    if info.contiguous_log2 and info.size_log2 + info.contiguous_log2 > params.iasize and choices.contig_misprog_faults:
        yield failed(FaultType.TRANSLATION, "ContiguousBitFaults", "Contiguous")
    if info.level < FINAL_LEVEL and entries.is_not_translated(params, info.raw) and ctx.nt_faults():
        yield failed(FaultType.TRANSLATION, "BlocknTFaults", "nT")
    output = compose(ctx, found.base, ctx.va, info.size_log2, info.contiguous_log2)
    checked = checked_address(ctx, params, info.raw, output)
    if out_of_range(ctx, checked, params.oa_size):
        bit = f"OA beyond the {params.oa_size} bits of {params.tcr}.{_ps(params)}"
        yield failed(FaultType.ADDRESS_SIZE, "OAOutOfRange", bit)
    exempt = ctx.is_cache_op() and not choices.af_fault_on_cache_ops
    if not info.raw & AF and not params.ha and not exempt:
        yield failed(FaultType.ACCESS_FLAG, "S1Walk", "AF")
    if found.attrs.device >= 0 and misaligned(ctx):
        yield failed(FaultType.ALIGNMENT, "S1HasAlignmentFault", "AttrIndx (Device)")
    for denial in denials.stage1(ctx, params, found.leaf, found.attrs.device >= 0):
        record = failed(FaultType.PERMISSION, "S1CheckPermissions", denial.bit)
        record.overlay, record.dirty_bit = denial.flag == "overlay", denial.flag == "dirty"
        record.write = record.write if denial.write is None else denial.write
        yield record


def _updated(ctx: Context, params: S1Params, raw: int, fault: FaultRecord | None) -> int:
    """The descriptor with the access flag and dirty state that hardware writes (D8.5)."""
    if not params.ha:
        return raw
    kind, choices, new = fault.fault if fault else FaultType.NONE, ctx.system.choices, raw
    if kind is FaultType.NONE or choices.af_update_on_fault:
        new |= AF
    managed = params.hd and (params.pie or raw & entries.DBM)
    at = ctx.acctype == "AT" and "at-sets-dirty" not in ctx.system.deviates
    late = kind is FaultType.ALIGNMENT and choices.dirty_update_on_fault
    if ctx.access.traits.write and managed and not at and not ctx.is_cache_op() and (kind is FaultType.NONE or late):
        new &= ~entries.AP2
    return new


def _update(ctx: Context, params: S1Params, found: _Found, old: int, new: int) -> Steps[bool]:
    """Write the leaf back, through stage 2 where there is one; False where it changed meanwhile."""
    info = found.info
    at = yield from _ipa_read(ctx, params, found.ipa, found.table_space, info.level, True)
    record = _record(ctx, FaultType.NONE, info.level, "")
    yield from gpt.check(ctx, at.pa, at.space, record, on_walk=True)
    return swap_descriptor(ctx, at.pa, 1 << params.desc_log2, params.ee, old, new)


def _output(ctx: Context, params: S1Params, found: _Found) -> Output:
    """The output address and attributes, cacheability controls applied."""
    info, attrs = found.info, found.attrs
    pa = compose(ctx, found.base, ctx.va, info.size_log2, info.contiguous_log2)
    if ctx.acctype == "IFETCH":
        uncached = attrs.device >= 0 or not params.icache
    else:
        uncached = attrs.device < 0 and not params.dcache
    if uncached:
        attrs = attributes.NORMAL_NC._replace(xs=attrs.xs)
    raw_shareability = ctx.system.two_stages(ctx.regime) and bool(ctx.system.get("HCR_EL2", "VM"))
    if "par-sh-raw" in ctx.system.deviates:
        attrs = attrs._replace(shareability=found.attrs.shareability)
    elif not raw_shareability or ctx.system.choices.effective_shareability_s1:
        attrs = attrs.effective()
    else:
        attrs = attrs._replace(shareability=found.attrs.shareability)
    return Output(pa & (1 << 56) - 1, found.leaf.space, attrs, found.assured, params, found.leaf)

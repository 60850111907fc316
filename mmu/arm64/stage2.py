"""Stage 2: an intermediate physical address to a physical one (Arm ARM D8.2; AArch64_S2Translate, AArch64_S2Walk)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ...arch.arm64.faults import FaultType
from ..walk import Step
from . import attributes, denials, entries, gpt, permissions
from .access import PASpace
from .attributes import MemAttrs
from .context import Abort, Context, FaultRecord, LeafInfo, Steps, first_fault, read_descriptor, swap_descriptor
from .entries import AF, Kind
from .params import FINAL_LEVEL, Geometry, S2Params

RETRIES = 64  # a descriptor that changes under the walk starts it again; each change only sets bits


class Request(NamedTuple):
    """What is asked of stage 2: the access itself (`walk` False) or a stage 1 table access (`walk` True).

    `update` marks the write of a stage 1 descriptor; `top_level` a fetch from the start table, `upper` of TTBR1's.
    """

    ipa: int
    space: PASpace
    attrs: MemAttrs
    walk: bool = False
    update: bool = False
    top_level: bool = False
    upper: int = 0
    s1_level: int | None = None
    assured: bool = False


class Output(NamedTuple):
    """Where stage 2 led: `mostly_read_only` is the s2fs1mro of FEAT_THE, `raw` the leaf (None while stage 2 is off)."""

    pa: int
    space: PASpace
    attrs: MemAttrs
    mostly_read_only: bool = False
    params: S2Params | None = None
    raw: int = 0


@dataclass(slots=True)
class _Found:
    """The leaf a stage 2 walk ended at."""

    raw: int
    level: int
    entry_pa: int
    contiguous: int
    base: int
    space: PASpace
    attrs: MemAttrs


def translate(ctx: Context, request: Request) -> Steps[Output]:
    """Translate one IPA; aborts with the stage 2 fault."""
    params = ctx.system.stage2(request.space)
    if not params.on:
        return Output(request.ipa, request.space, request.attrs)
    early = first_fault(_early(ctx, params, request))
    if early is not None:
        raise Abort(early)
    for _ in range(RETRIES):
        found = yield from _walk(ctx, params, request)
        fault = first_fault(_checks(ctx, params, request, found))
        if not request.walk and (fault is None or fault.fault in (FaultType.ALIGNMENT, FaultType.PERMISSION)):
            size_log2 = params.shift(found.level)
            ctx.detail.s2_leaf = LeafInfo(found.level, found.raw, found.entry_pa, size_log2, found.contiguous)
        old, new = found.raw, _updated(ctx, params, request, found.raw, fault)
        done = new == old
        if not done:
            template = _record(ctx, request, FaultType.NONE, found.level, "")
            yield from gpt.check(ctx, found.entry_pa, params.base_space, template, on_walk=True)
            size = 1 << params.desc_log2
            done = swap_descriptor(ctx, found.entry_pa, size, params.ee, old, new)
        if done:
            break
    if fault is not None:
        raise Abort(fault)
    return _output(ctx, params, request, found)


def _record(ctx: Context, request: Request, fault: FaultType, level: int, rule: str, bit: str = "") -> FaultRecord:
    record = FaultRecord(fault, level, ctx.default_write, stage2=True, s2fs1walk=request.walk)
    record.ipa, record.ipa_space, record.rule, record.bit = request.ipa, request.space, rule, bit
    if request.s1_level is not None and "s1ptw-level-of-stage1" in ctx.system.deviates:
        record.level = request.s1_level
    return record


def _early(ctx: Context, params: S2Params, request: Request) -> Iterator[FaultRecord]:
    """The faults that need no table: T0SZ, start level, input size."""
    if params.txsz_fault:
        yield _record(ctx, request, FaultType.TRANSLATION, 0, "S2TxSZFaults", f"VTCR_EL2.T0SZ {params.txsz_fault}")
    if params.bad_start:
        yield _record(ctx, request, FaultType.TRANSLATION, 0, "S2InconsistentSL", f"VTCR_EL2: {params.bad_start}")
    if request.ipa >> params.iasize:
        bit = f"IPA {request.ipa:#x} needs more than the {params.iasize} bits of VTCR_EL2.T0SZ"
        yield _record(ctx, request, FaultType.TRANSLATION, 0, "IPAIsOutOfRange", bit)


def out_of_range(ctx: Context, address: int, oa_size: int) -> bool:
    """Whether an address lies beyond the output size (AArch64_OAOutOfRange)."""
    return bool(address >> oa_size) and "oa-size-unchecked" not in ctx.system.deviates


def drop_high(ctx: Context, params: Geometry, address: int) -> int:
    """The address a descriptor gives, without bits 51:48 (51:50 with DS) where an emulator ignores them."""
    if params.oa_size < 52 and "high-oa-ignored" in ctx.system.deviates:
        return address & (1 << (50 if params.ds else 48)) - 1
    return address


def checked_address(ctx: Context, params: Geometry, raw: int, output: int) -> int:
    """The address that is held against the output size."""
    if "oa-size-of-descriptor" in ctx.system.deviates:
        return drop_high(ctx, params, entries.table_address(params, raw))
    return output


def leaf_base(ctx: Context, params: Geometry, raw: int, level: int) -> int:
    """The address in a leaf (AArch64_LeafBase)."""
    if "block-low-bits-ored" in ctx.system.deviates:
        return drop_high(ctx, params, entries.table_address(params, raw))
    return drop_high(ctx, params, entries.leaf_address(params, raw, level))


def _walk(ctx: Context, params: S2Params, request: Request) -> Steps[_Found]:
    """From the start table to a leaf (AArch64_S2Walk)."""
    level, size, ipa = params.require_start(), 1 << params.desc_log2, request.ipa
    shift = params.shift(level)
    pa = params.base | (ipa & (1 << params.iasize) - 1) >> shift << params.desc_log2
    if out_of_range(ctx, pa, params.oa_size):
        bit = f"VTTBR_EL2.BADDR beyond the {params.oa_size} bits of VTCR_EL2.PS"
        raise Abort(_record(ctx, request, FaultType.ADDRESS_SIZE, 0, "S2Walk", bit))
    any_block = "any-block-level" in ctx.system.deviates
    while True:
        params.require(level)
        record = _record(ctx, request, FaultType.NONE, level, "")
        yield from gpt.check(ctx, pa, params.base_space, record, on_walk=True)
        raw = read_descriptor(ctx, pa, size, params.ee, record)
        record.entry_pa, record.entry = pa, raw
        kind = entries.kind_of(params, raw, level, any_block and level >= 0)
        yield _step(params, raw, level, pa, kind)
        if kind is Kind.LEAF:
            return _leaf(ctx, params, request, raw, level, pa)
        if kind is Kind.INVALID:
            fail(record, FaultType.TRANSLATION, "DecodeDescriptorType", "valid" if not raw & 1 else "descriptor type")
        skl = entries.D128_SKL.get(raw) if params.d128 else 0
        below, table = level + 1 + skl, drop_high(ctx, params, entries.table_address(params, raw))
        low, width = params.shift(below), params.stride * (1 + skl)
        following = table | (ipa >> low & (1 << width) - 1) << params.desc_log2
        if out_of_range(ctx, following, params.oa_size):
            bit = f"NLTA beyond the {params.oa_size} bits of VTCR_EL2.PS"
            fail(record, FaultType.ADDRESS_SIZE, "OAOutOfRange", bit)
        if skl and entries.is_not_translated(params, raw) and ctx.nt_faults():
            fail(record, FaultType.TRANSLATION, "BlocknTFaults", "nT")
        if params.haft and not raw & AF and not swap_descriptor(ctx, pa, size, params.ee, raw, raw | AF):
            continue
        level, pa = below, following


def fail(record: FaultRecord, fault: FaultType, rule: str, bit: str) -> None:
    record.fault, record.rule, record.bit = fault, rule, bit
    raise Abort(record)


def _step(params: S2Params, raw: int, level: int, pa: int, kind: Kind) -> Step:
    note = {Kind.TABLE: "table", Kind.LEAF: "leaf", Kind.INVALID: "invalid"}[kind]
    layout = entries.layout_of(params, raw, level, 2)
    return Step(rule="S2Walk", note=note, stage=2, level=level, name=f"S2 L{level}", pa=pa, raw=raw, kind=layout,
                source="Arm ARM D8.2.9")  # fmt: skip


def _output_space(params: S2Params, request: Request, raw: int) -> PASpace:
    if params.security is PASpace.Secure:
        return params.secure_output[request.space is not PASpace.Secure]
    if params.security is PASpace.Realm and not entries.s2_ns(raw, params.d128):
        return PASpace.Realm
    return PASpace.NonSecure


def _leaf(ctx: Context, params: S2Params, request: Request, raw: int, level: int, pa: int) -> _Found:
    sh = params.sh if params.ds else entries.shareability(raw)
    fnxs, memattr = entries.fnxs(raw), entries.memattr(raw)
    shareability = attributes.decode_shareability(sh)
    if params.fwb:
        first = request.attrs
        if "fwb-device-of-stage2" in ctx.system.deviates and first.device >= 0 and not memattr & 4:
            first = first._replace(device=3)  # the weakest type: stage 2's decides
        attrs = attributes.forced_write_back(first, memattr, shareability, fnxs)
    else:
        attrs = attributes.decode_stage2(memattr, shareability, fnxs)
    base = leaf_base(ctx, params, raw, level)
    contiguous = entries.contiguous_log2(params, raw, level)
    return _Found(raw, level, pa, contiguous, base, _output_space(params, request, raw), attrs)


def compose(ctx: Context, base: int, address: int, size: int, contiguous: int) -> int:
    """The output address: bits below the block and its contiguous run come from the input (StageOA)."""
    if "block-low-bits-ored" in ctx.system.deviates:
        return base | address & (1 << size) - 1
    msb = size if "contiguous-ignored" in ctx.system.deviates else size + contiguous
    return base >> msb << msb | address & (1 << msb) - 1


def _checks(ctx: Context, params: S2Params, request: Request, found: _Found) -> Iterator[FaultRecord]:
    """Every check of a leaf that fails, in the architecture's order."""
    choices, size, raw = ctx.system.choices, params.shift(found.level), found.raw

    def failed(fault: FaultType, rule: str, bit: str) -> FaultRecord:
        record = _record(ctx, request, fault, found.level, rule, bit)
        record.entry_pa, record.entry = found.entry_pa, raw
        return record

    if found.contiguous and size + found.contiguous > params.iasize and choices.contig_misprog_faults:
        yield failed(FaultType.TRANSLATION, "ContiguousBitFaults", "Contiguous")
    if found.level < FINAL_LEVEL and entries.is_not_translated(params, raw) and ctx.nt_faults():
        yield failed(FaultType.TRANSLATION, "BlocknTFaults", "nT")
    output = compose(ctx, found.base, request.ipa, size, found.contiguous)
    checked = checked_address(ctx, params, raw, output)
    if out_of_range(ctx, checked, params.oa_size):
        yield failed(FaultType.ADDRESS_SIZE, "OAOutOfRange", f"OA beyond the {params.oa_size} bits of VTCR_EL2.PS")
    exempt = not request.walk and ctx.is_cache_op() and not choices.af_fault_on_cache_ops
    if not raw & AF and not params.ha and not exempt:
        yield failed(FaultType.ACCESS_FLAG, "S2Walk", "AF")
    if found.attrs.device >= 0 and not request.walk and misaligned(ctx):
        yield failed(FaultType.ALIGNMENT, "S2HasAlignmentFault", "MemAttr (Device)")
    for denial in _denials(ctx, params, request, found):
        record = failed(FaultType.PERMISSION, "S2CheckPermissions", denial.bit)
        record.overlay, record.dirty_bit = denial.flag == "overlay", denial.flag == "dirty"
        record.top_level, record.assured_only = denial.flag == "toplevel", denial.flag == "assured"
        record.write = record.write if denial.write is None else denial.write
        yield record


def _denials(ctx: Context, params: S2Params, request: Request, found: _Found) -> Iterator[denials.Denial]:
    device = found.attrs.device >= 0
    if not request.walk:
        return denials.stage2(ctx, params, found.raw, found.space, device, request.assured)
    return denials.stage2_walk(
        ctx, params, found.raw, found.space, device, update=request.update, top=request.top_level, upper=request.upper
    )


def misaligned(ctx: Context) -> bool:
    """Whether an access to Device memory has to fault for its alignment."""
    if ctx.acctype == "IFETCH" or "no-device-alignment" in ctx.system.deviates:
        return False
    return ctx.acctype == "DCZero" or not ctx.access.aligned


def _updated(ctx: Context, params: S2Params, request: Request, raw: int, fault: FaultRecord | None) -> int:
    """The descriptor with the access flag and dirty state that hardware writes (D8.5)."""
    if not params.ha:
        return raw
    kind, choices = fault.fault if fault else FaultType.NONE, ctx.system.choices
    soft = kind in (FaultType.PERMISSION, FaultType.ALIGNMENT)
    alone = fault is not None and fault.bit.startswith("HCR_EL2.PTW") and not fault.also
    ptw_first = alone and "ptw-sets-af-first" in ctx.system.deviates
    new = raw
    if kind is FaultType.NONE or (soft and choices.af_update_on_fault) or ptw_first:
        new |= AF
    writes = request.update if request.walk else ctx.access.traits.write
    managed = params.hd and (params.s2pie or raw & entries.DBM)
    at = not request.walk and ctx.acctype == "AT" and "at-sets-dirty" not in ctx.system.deviates
    late = kind is FaultType.ALIGNMENT and choices.dirty_update_on_fault
    if writes and managed and not at and (request.walk or not ctx.is_cache_op()) and (kind is FaultType.NONE or late):
        new |= entries.S2_DIRTY
    return new


def _output(ctx: Context, params: S2Params, request: Request, found: _Found) -> Output:
    """The physical address and the combined attributes."""
    pa = compose(ctx, found.base, request.ipa, params.shift(found.level), found.contiguous)
    attrs, fetch = found.attrs, not request.walk and ctx.acctype == "IFETCH"
    device = attrs.device >= 0
    if fetch:
        uncached = device or params.instruction_cd
    else:
        uncached = (request.walk and device and not params.ptw) or (not device and params.cd)
    if uncached:
        attrs = attributes.NORMAL_NC._replace(xs=attrs.xs)
    if not params.fwb:
        odd = "device-by-low-nibble" in ctx.system.deviates
        attrs = (attributes.combine_by_low_nibble if odd else attributes.combine)(request.attrs, attrs)
    rights = permissions.stage2(params, found.raw, el0=ctx.el == 0)
    return Output(pa, found.space, attrs, rights.mostly_read_only, params, found.raw)

"""What an aborted or completed access reports: ISS, ISS2, HPFAR_EL2 and PAR_EL1 (Arm ARM D24.2.40, D24.2.120)."""

from __future__ import annotations

from ...arch.arm64.faults import (
    ISS_DATA_ABORT,
    PAR_EL1,
    PAR_EL1_128,
    PAR_EL1_FAULT,
    PAR_EL1_FAULT_128,
    TOP_LEVEL_BIT,
    FaultType,
)
from ..memory import Memory
from . import attributes
from .access import Arm64Access, PASpace
from .context import Context, Detail, FaultRecord
from .system import SystemState

_ISS = ISS_DATA_ABORT
_ISS2_SHIFT = 25  # ISS2 stands behind the 25 bits of ISS in that layout
_ISS2_ASSURED, _ISS2_OVERLAY, _ISS2_DIRTY = 7, 6, 5


def iss(ctx: Context, record: FaultRecord) -> tuple[int, int]:
    """ISS[24:0] and ISS2[23:0] (AArch64_FaultSyndrome); ISV and what goes with it are 0."""
    first, second = record.code, 0
    permission = record.fault is FaultType.PERMISSION
    cache_or_at = ctx.is_cache_op() or ctx.acctype == "AT"
    # A granule protection fault on the output reports neither WnR nor CM (GranuleProtectionCheck, no access recorded).
    if ctx.acctype != "IFETCH" and record.fault is not FaultType.GPCF_ON_OUTPUT:
        first |= _ISS["CM"].mask if cache_or_at else 0
        first |= _ISS["WnR"].mask if cache_or_at or record.write else 0
    if permission:
        second |= record.overlay << _ISS2_OVERLAY | record.assured_only << _ISS2_ASSURED
        second |= record.dirty_bit << _ISS2_DIRTY
        first |= record.top_level << TOP_LEVEL_BIT
    first |= _ISS["S1PTW"].mask if record.s2fs1walk else 0
    return first, second


def hpfar_valid(ctx: Context, record: FaultRecord) -> bool:
    """Whether HPFAR_EL2 holds the faulting IPA (IPAValid)."""
    if not record.stage2:
        return False
    if record.fault is FaultType.GPCF_ON_WALK:
        return True
    if record.fault is FaultType.PERMISSION:
        return record.s2fs1walk or "hpfar-on-permission" in ctx.system.deviates
    return record.fault in (FaultType.ACCESS_FLAG, FaultType.TRANSLATION, FaultType.ADDRESS_SIZE)


def hpfar(ctx: Context, record: FaultRecord) -> int:
    """HPFAR_EL2: IPA[55:12] in bits 47:4; NS in bit 63, which is 0 outside Secure state (AArch64_ReportException)."""
    secure = ctx.security is PASpace.Secure
    return (record.ipa or 0) >> 12 << 4 | (secure and record.ipa_space is PASpace.NonSecure) << 63


def _par_is_wide(ctx: Context) -> bool:
    """Whether PAR_EL1 takes its 128-bit form: where the last stage asked about uses 128-bit descriptors."""
    if ctx.system.two_stages(ctx.regime) and not ctx.access.stage1_only:
        second = ctx.system.stage2(ctx.security)
        if second.on:
            return second.d128
    return ctx.system.stage1(ctx.regime, ctx.va).d128


def par(ctx: Context, detail: Detail) -> int:
    """PAR_EL1 as an AT instruction leaves it (AArch64_EncodePAR), 128 bits where FEAT_D128 is in use."""
    wide = _par_is_wide(ctx)
    record = detail.fault
    if record is not None:
        fields = {
            "F": 1,
            "FST": record.code,
            "PTW": int(record.s2fs1walk),
            "S": int(record.stage2),
            "RES1": 1,
            "AssuredOnly": int(record.assured_only),
            "TopLevel": int(record.top_level),
            "Overlay": int(record.overlay),
            "DirtyBit": int(record.dirty_bit),
        }
        return PAR_EL1_FAULT_128.build(D128=1, **fields) if wide else PAR_EL1_FAULT.build(**fields)
    fields = _par_output(ctx, detail)
    return PAR_EL1_128.build(D128=1, **fields) if wide else PAR_EL1.build(**fields)


def _par_output(ctx: Context, detail: Detail) -> dict[str, int]:
    """The fields of a successful translation."""
    attrs = detail.attrs
    assert attrs is not None
    shareability = attributes.encode_par_shareability(attrs)
    if "par-sh-raw" in ctx.system.deviates:
        shareability = {0: 0b00, 1: 0b11, 2: 0b10}[attrs.shareability]
    rme = "FEAT_RME" in ctx.system.features
    return {
        "SH": shareability,
        "NS": int(detail.pa_space in (PASpace.NonSecure, PASpace.Realm)),
        "NSE": int(detail.pa_space in (PASpace.Root, PASpace.Realm)) if rme else 1,
        "PA": detail.pa >> 12,
        "ATTR": attributes.encode_par(attrs, xs="FEAT_XS" in ctx.system.features),
    }


def expected_par(system: SystemState, memory: Memory, va: int, form: str, *, pan: bool = False) -> int:
    """PAR_EL1 after `AT <form>, va`: forms are S1E1R, S1E0W, S1E1RP, S12E1R ...; memory is left as it is.

    >>> from .features import Choices, Features
    >>> from ..memory import WordMemory
    >>> system = SystemState({"SCR_EL3": 1, "SCTLR_EL1": 0}, Features(), Choices())
    >>> hex(expected_par(system, WordMemory({}), 0x8000_1234, "S1E1R"))
    '0x80001b00'
    """
    from .walk import make_context, run

    ctx = make_context(system, memory, va, Arm64Access.at(form, pan=pan))
    for _ in run(ctx):
        pass
    return par(ctx, ctx.detail)

"""Parameter rows for the compiled walker: one translation's controls as unsigned 64-bit integers.

`COLUMNS` names the columns; `pack` fills a row from the same `S1Params`, `S2Params` and `Arm64Access` that the
reference walker uses. `not_taken` says why the compiled walker leaves a translation to the reference walker.
"""

from __future__ import annotations

from . import permissions
from .access import Arm64Access, PASpace
from .params import Geometry, S1Params, S2Params
from .system import RegimeName, SystemState

_GEOMETRY = "granule stride iasize start base oa_size ha hd haft ee ds wide_oa block_low"
_COLUMNS = f"""on off_recipe pamax top upper unprivileged early_fault sh mair epan wxn nv1 table_mask e0pd icache dcache
    {_GEOMETRY} two_stages stage1_only nt_faults contig_faults
    s2_on s2_bad s2_sh s2_ptw s2_fwb s2_cd s2_icd s2_xnx {" ".join(f"s2_{name}" for name in _GEOMETRY.split())}
    fetch cache_op dc_zva at read write el0 aligned pan_access pan"""
COLUMNS = tuple(_COLUMNS.split())
INDEX = {name: i for i, name in enumerate(COLUMNS)}

OFF_DEFAULT, OFF_FETCH_CACHED, OFF_NC, OFF_DEVICE = 1, 2, 3, 4  # attributes of a translation with stage 1 off
EARLY_TXSZ, EARLY_EPD = 1, 2


def not_taken(system: SystemState, regime: RegimeName, va: int, access: Arm64Access) -> str:
    """Why the compiled walker does not take this translation; nothing where it does."""
    if "FEAT_RME" in system.features:
        return "FEAT_RME"
    if system.deviates or system.choices.af_update_on_fault or system.choices.device_fetch_faults:
        return "choices other than the default ones"
    if system.choices.dirty_update_on_fault or not system.choices.effective_shareability_s1:
        return "choices other than the default ones"
    if not system.choices.af_fault_on_cache_ops:
        return "choices other than the default ones"
    if system.security(access.level) is not PASpace.NonSecure:
        return "Secure state"
    if access.operation is not None and access.operation.traits.acctype == "DCI":
        return "DC by invalidation"
    if access.non_fault:
        return "SVE non-fault loads"
    params = system.stage1(regime, va)
    for flag, name in (("d128", "FEAT_D128"), ("pie", "FEAT_S1PIE"), ("pnch", "FEAT_THE"), ("mtx", "FEAT_MTE4"),
                       ("aie", "FEAT_AIE")):  # fmt: skip
        if getattr(params, flag):
            return name
    if params.poe or params.e0poe:
        return "FEAT_S1POE"
    return _stage2_not_taken(system.stage2(PASpace.NonSecure)) if system.two_stages(regime) else ""


def _stage2_not_taken(params: S2Params) -> str:
    if not params.on:
        return ""
    for flag, name in (("d128", "FEAT_D128"), ("s2pie", "FEAT_S2PIE"), ("assured_only", "FEAT_THE"),
                       ("tl0", "FEAT_THE"), ("tl1", "FEAT_THE")):  # fmt: skip
        if getattr(params, flag):
            return name
    return ""


def _geometry(params: Geometry, prefix: str = "") -> dict[str, int]:
    """The columns both stages share. Levels count from 0 (the manual's -1) to 4 (its 3)."""
    values = {
        "granule": params.granule,
        "stride": params.stride,
        "iasize": params.iasize,
        "start": params.start_level + 1,
        "base": params.base,
        "oa_size": params.oa_size,
        "ha": params.ha,
        "hd": params.hd,
        "haft": params.haft,
        "ee": params.ee,
        "ds": params.ds,
        "wide_oa": params.lpa and params.granule == 16,
        "block_low": _lowest_block(params) + 1,
    }
    return {prefix + name: int(value) for name, value in values.items()}


def _lowest_block(params: Geometry) -> int:
    """The first level at which a block may stand."""
    if params.granule == 12:
        return 0 if params.ds else 1
    if params.granule == 14:
        return 1 if params.ds else 2
    return 1 if params.pamax >= 52 else 2


def pack(system: SystemState, regime: RegimeName, va: int, access: Arm64Access) -> list[int]:
    """The parameter row for one half of the address space and one kind of access."""
    params, traits = system.stage1(regime, va), access.traits
    values = _geometry(params) | _stage1(system, regime, params, access)
    values["two_stages"], values["stage1_only"] = int(system.two_stages(regime)), int(access.stage1_only)
    values["nt_faults"] = int(
        "FEAT_BBM" in system.features and system.choices.bbm_level in (1, 2) and system.choices.nt_block_faults
    )
    values["contig_faults"] = int(system.choices.contig_misprog_faults)
    if system.two_stages(regime):
        values |= _stage2(system.stage2(PASpace.NonSecure))
    acctype = traits.acctype
    values |= {
        "fetch": int(acctype == "IFETCH"),
        "cache_op": int(acctype == "DC"),
        "dc_zva": int(acctype == "DCZero"),
        "at": int(acctype == "AT"),
        "read": int(traits.read),
        "write": int(traits.write),
        "el0": int(access.level == 0),
        "aligned": int(access.aligned),
        "pan_access": int(access.honours_pan),
        "pan": int(access.pan),
    }
    return [values.get(name, 0) for name in COLUMNS]


def _stage1(system: SystemState, regime: RegimeName, params: S1Params, access: Arm64Access) -> dict[str, int]:
    fetch = access.traits.acctype == "IFETCH"
    off = OFF_DEVICE
    if params.default_cacheable:
        off = OFF_DEFAULT
    elif fetch:
        off = OFF_FETCH_CACHED if params.icache else OFF_NC
    early = EARLY_TXSZ if params.txsz_fault else EARLY_EPD if params.epd else 0
    table_mask = 0 if params.hpd else permissions.TABLE_BITS
    if not params.regime.unprivileged or params.nv1:
        table_mask &= permissions.UXN_TABLE | permissions.APTABLE_RO
    return {
        "on": int(system.stage1_on(regime)),
        "off_recipe": off,
        "pamax": params.pamax,
        "top": 55 if params.tbi and not (params.tbid and fetch) else 63,
        "upper": params.upper,
        "unprivileged": int(regime.unprivileged),
        "early_fault": early,
        "sh": params.sh,
        "mair": params.mair & (1 << 64) - 1,
        "epan": int(params.epan),
        "wxn": int(params.wxn),
        "nv1": int(params.nv1),
        "table_mask": table_mask,
        "e0pd": int(params.e0pd),
        "icache": int(params.icache),
        "dcache": int(params.dcache),
    }


def _stage2(params: S2Params) -> dict[str, int]:
    return _geometry(params, "s2_") | {
        "s2_on": int(params.on),
        "s2_bad": int(bool(params.txsz_fault or params.bad_start)),
        "s2_sh": params.sh,
        "s2_ptw": int(params.ptw),
        "s2_fwb": int(params.fwb),
        "s2_cd": int(params.cd),
        "s2_icd": int(params.instruction_cd),
        "s2_xnx": int(params.xnx),
    }

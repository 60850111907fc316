"""System registers gathered into the controls of a stage: the manual's AArch64_GetS1TTWParams and GetS2TTWParams.

A feature that is not implemented reads as a control that is off; a register that is not in force (TCR2_ELx) as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...arch.errors import RegisterError
from .access import PASpace
from .features import Choices, Features
from .params import (
    FINAL_LEVEL,
    GRANULE_NAMES,
    TG0,
    TG1,
    S1Params,
    S2Params,
    max_txsz,
    physical_address_size,
)

if TYPE_CHECKING:
    from .system import RegimeName, SystemState


def _reserved_granule(register: str, name: str, value: int) -> RegisterError:
    return RegisterError(f"{name} holds a reserved granule size", field=register, value=value)


@dataclass(frozen=True, slots=True)
class _Stage1:
    """The registers of one regime and half of its address space, by field."""

    system: SystemState
    regime: RegimeName
    upper: int

    @property
    def tcr(self) -> str:
        return f"TCR_EL{self.regime.el}"

    def have(self, feature: str) -> bool:
        return feature in self.system.features

    def t(self, name: str) -> int:
        """A field of TCR_ELx."""
        layout = "TCR_EL2_E2H" if self.regime.title == "EL2&0" else self.tcr
        return self.system.get(self.tcr, name, layout)

    def ranged(self, name: str) -> bool:
        """A flag of TCR_ELx that two-range regimes have for each half."""
        return bool(self.t(f"{name}{self.upper}" if self.regime.unprivileged else name))

    def extended(self, name: str) -> bool:
        """A flag of TCR2_ELx, or of TCR_EL3, which holds them itself; off while TCR2_ELx is not in force."""
        if self.regime.el == 3:
            return bool(self.t(name))
        on = self.system.tcr2_el1_enabled if self.regime.el == 1 else self.system.tcr2_el2_enabled
        return on and bool(self.system.get(f"TCR2_EL{self.regime.el}", name))

    def sctlr(self, name: str) -> bool:
        return bool(self.system.get(f"SCTLR_EL{self.regime.el}", name))

    def register(self, name: str) -> int:
        """A whole register of the regime's Exception level."""
        return self.system.registers.get(f"{name}_EL{self.regime.el}", 0)


def stage1_params(system: SystemState, regime: RegimeName, upper: int) -> S1Params:
    """The stage 1 controls of `regime` for the lower (0) or upper (1) range (AArch64_GetS1TTWParams)."""
    read = _Stage1(system, regime, upper)
    nv1 = regime.title == "EL1&0" and system.el2_enabled and bool(system.get("HCR_EL2", "NV1"))
    shape = _stage1_shape(read)
    params = S1Params(
        regime=regime,
        upper=upper,
        tcr=read.tcr,
        nv1=nv1,
        sh=read.t(f"SH{upper}"),
        icache=read.sctlr("I"),
        dcache=read.sctlr("C"),
        default_cacheable=system.two_stages(regime) and bool(system.get("HCR_EL2", "DC")),
        **shape,
        **_stage1_range(read),
        **_stage1_attributes(read, shape["d128"]),
        **_stage1_permissions(read, shape["d128"], nv1),
    )
    choices, features = system.choices, system.features
    faults_low = read.have("FEAT_LVA") or choices.txsz_below_min_faults
    low, high = _stage1_min_txsz(features, params), max_txsz(features, params.granule)
    params.txsz_fault = params.clamp(low, high, faults_low, choices.txsz_above_max_faults)
    if not params.txsz_fault:
        params.set_start(params.natural_start(), el3=regime.el == 3)
    return params


def _stage1_shape(read: _Stage1) -> dict[str, Any]:
    """What `Geometry` takes."""
    system, upper = read.system, read.upper
    granule = (TG1 if upper else TG0).get(read.t("TG1" if upper else "TG0"))
    if granule is None:
        if not (read.regime.unprivileged and read.ranged("EPD")):
            raise _reserved_granule(read.tcr, "TG1" if upper else "TG0", system.registers.get(read.tcr, 0))
        granule = 12  # of a half that is off
    d128 = read.have("FEAT_D128") and read.regime.title != "EL2" and read.extended("D128")
    ha, ps = read.have("FEAT_HAFDBS") and bool(read.t("HA")), read.t("IPS" if read.regime.unprivileged else "PS")
    ttbr = f"TTBR{upper}_EL{read.regime.el}"
    return {
        "granule": granule,
        "d128": d128,
        "ds": granule != 16 and read.have("FEAT_LPA2") and bool(read.t("DS")),
        "txsz": read.t(f"T{upper}SZ"),
        "ps": ps,
        "ha": ha,
        "hd": read.have("FEAT_HAFDBS") and bool(read.t("HD")),
        "haft": read.have("FEAT_HAFT") and ha and read.extended("HAFT"),
        "ee": read.sctlr("EE"),
        "ttbr": system.registers.get(ttbr, 0),
        "skl": system.get(ttbr, "SKL", "TTBR0_EL1_128") if d128 else 0,
        "pamax": system.features.pamax,
        "lpa": read.have("FEAT_LPA"),
        "oa_size": physical_address_size(system.features, d128=d128, ps=ps, granule=granule),
    }


def _stage1_range(read: _Stage1) -> dict[str, Any]:
    """Which addresses are taken, and from whom."""
    two_ranges = read.regime.unprivileged
    return {
        "epd": two_ranges and read.ranged("EPD"),
        "tbi": read.ranged("TBI"),
        "tbid": read.ranged("TBID"),
        "mtx": read.have("FEAT_MTE4") and read.ranged("MTX"),
        "e0pd": two_ranges and read.have("FEAT_E0PD") and read.ranged("E0PD"),
        "nfd": two_ranges and read.ranged("NFD"),
    }


def _stage1_attributes(read: _Stage1, d128: bool) -> dict[str, Any]:
    """Memory attributes and what shapes the output of a leaf."""
    half = f"DisCH{read.upper}"
    return {
        "mair": read.register("MAIR") | read.register("MAIR2") << 64,
        "aie": read.have("FEAT_AIE") and read.extended("AIE"),
        "disch": d128 and read.extended(half),
        "pnch": read.have("FEAT_THE") and not d128 and read.extended("PnCH"),
    }


def _stage1_permissions(read: _Stage1, d128: bool, nv1: bool) -> dict[str, Any]:
    """Permissions: hierarchical, direct, indirect, overlay."""
    system, two_ranges = read.system, read.regime.unprivileged
    pie = d128 or (read.have("FEAT_S1PIE") and read.extended("PIE"))
    secure_fetch = not read.have("FEAT_RME") or read.have("FEAT_SEL2")
    return {
        "hpd": read.have("FEAT_HPDS") and read.ranged("HPD"),
        "wxn": read.sctlr("WXN"),
        "sif": secure_fetch and bool(system.get("SCR_EL3", "SIF")),
        "pie": pie,
        "pir": read.register("PIR"),
        "pire0": 0 if nv1 else read.register("PIRE0"),
        "epan": read.have("FEAT_PAN3") and (pie or (two_ranges and read.sctlr("EPAN"))),
        "sif_affects_epan": system.choices.sif_affects_epan,
        "realm_affects_epan": system.choices.realm_affects_epan,
        "poe": read.have("FEAT_S1POE") and read.extended("POE"),
        "e0poe": two_ranges and read.have("FEAT_S1POE") and not nv1 and read.extended("E0POE"),
        "por": read.register("POR"),
        "por_el0": system.registers.get("POR_EL0", 0),
    }


def _stage1_min_txsz(features: Features, params: S1Params) -> int:
    """The smallest TxSZ (AArch64_S1MinTxSZ)."""
    if "FEAT_LVA3" in features and params.d128:
        return 9 if params.regime.unprivileged else 8
    return 12 if params.ds or ("FEAT_LVA" in features and params.granule == 16) else 16


def stage2_params(system: SystemState, security: PASpace, ipa_space: PASpace) -> S2Params:
    """The stage 2 controls for an IPA of `ipa_space` (AArch64_GetS2TTWParams)."""
    own = security is PASpace.Secure and ipa_space is PASpace.Secure  # VSTCR_EL2 then holds the geometry
    sizes, base = ("VSTCR_EL2", "VSTTBR_EL2") if own else ("VTCR_EL2", "VTTBR_EL2")
    shape = _stage2_shape(system, sizes, base)
    deep = shape["granule"] == 12 and "FEAT_LPA2" in system.features
    params = S2Params(
        sl=system.get(sizes, "SL0"),
        sl2=system.get(sizes, "SL2") & system.get("VTCR_EL2", "DS") if deep else 0,
        security=security,
        **shape,
        **_stage2_switches(system),
        **_stage2_permissions(system, shape["d128"]),
        **_stage2_spaces(system, security, own),
    )
    _finish_stage2(params, system.features, system.choices)
    return params


def _stage2_shape(system: SystemState, sizes: str, base: str) -> dict[str, Any]:
    """What `Geometry` takes."""
    features = system.features
    granule = TG0.get(system.get(sizes, "TG0"))
    if granule is None:
        raise _reserved_granule(sizes, "TG0", system.registers.get(sizes, 0))
    d128 = "FEAT_D128" in features and bool(system.get("VTCR_EL2", "D128"))
    ha, ps = "FEAT_HAFDBS" in features and bool(system.get("VTCR_EL2", "HA")), system.get("VTCR_EL2", "PS")
    return {
        "granule": granule,
        "d128": d128,
        "ds": granule != 16 and "FEAT_LPA2" in features and bool(system.get("VTCR_EL2", "DS")),
        "txsz": system.get(sizes, "T0SZ"),
        "ps": ps,
        "ha": ha,
        "hd": "FEAT_HAFDBS" in features and bool(system.get("VTCR_EL2", "HD")),
        "haft": "FEAT_HAFT" in features and ha and bool(system.get("VTCR_EL2", "HAFT")),
        "ee": bool(system.get("SCTLR_EL2", "EE")),
        "ttbr": system.registers.get(base, 0),
        "skl": system.get(base, "SKL", "TTBR0_EL1_128") if d128 else 0,
        "pamax": features.pamax,
        "lpa": "FEAT_LPA" in features,
        "oa_size": physical_address_size(features, d128=d128, ps=ps, granule=granule),
    }


def _stage2_switches(system: SystemState) -> dict[str, Any]:
    """HCR_EL2, and the shareability that DS takes from VTCR_EL2."""

    def on(name: str) -> bool:
        return bool(system.get("HCR_EL2", name))

    return {
        "on": on("VM") or on("DC"),
        "sh": system.get("VTCR_EL2", "SH0"),
        "ptw": on("PTW") and not on("TGE"),
        "fwb": "FEAT_S2FWB" in system.features and on("FWB"),
        "cd": on("CD"),
        "instruction_cd": on("ID"),
    }


def _stage2_permissions(system: SystemState, d128: bool) -> dict[str, Any]:
    """Permissions: direct, indirect, overlay, and FEAT_THE."""

    def on(feature: str, name: str) -> bool:
        return feature in system.features and bool(system.get("VTCR_EL2", name))

    return {
        "xnx": "FEAT_XNX" in system.features,
        "s2pie": d128 or on("FEAT_S2PIE", "S2PIE"),
        "s2pir": system.registers.get("S2PIR_EL2", 0) if "FEAT_S2PIE" in system.features else 0,
        "s2poe": on("FEAT_S2POE", "S2POE"),
        "s2por": system.registers.get("S2POR_EL1", 0),
        "assured_only": not d128 and on("FEAT_THE", "AssuredOnly"),
        "tl0": on("FEAT_THE", "TL0"),
        "tl1": on("FEAT_THE", "TL1"),
    }


def _stage2_spaces(system: SystemState, security: PASpace, own: bool) -> dict[str, Any]:
    """Where the tables lie, and in Secure state where a Secure and a Non-secure IPA lead."""
    sw, sa = system.get("VSTCR_EL2", "SW"), system.get("VSTCR_EL2", "SA")
    nsw, nsa = system.get("VTCR_EL2", "NSW"), system.get("VTCR_EL2", "NSA")
    outside = security is PASpace.Secure and bool(sw if own else nsw)
    from_secure = PASpace.NonSecure if sw or sa else PASpace.Secure
    from_non_secure = PASpace.NonSecure if sw or sa or nsw or nsa else PASpace.Secure
    return {
        "base_space": PASpace.NonSecure if outside else security,
        "secure_output": (from_secure, from_non_secure),
    }


def _finish_stage2(params: S2Params, features: Features, choices: Choices) -> None:
    """Check T0SZ and the start level, and fix the base of the start table."""
    pamax = features.pamax
    if "vtcr-ps-limits-ipa" in choices.deviations:
        pamax = min(pamax, params.oa_size)
    limit = pamax
    if not params.d128:
        limit = min(48 if params.lpa and params.granule != 16 and not params.ds else 52, pamax)
    faults_low = params.lpa or choices.txsz_below_min_faults
    high = max_txsz(features, params.granule)
    params.txsz_fault = params.clamp(64 - limit, high, faults_low, choices.txsz_above_max_faults)
    if params.d128:
        level = params.natural_start() if not params.txsz_fault else FINAL_LEVEL
    else:
        level = _stage2_start(params)
        params.bad_start = _bad_start(params, level, pamax, small_tables="FEAT_TTST" in features)
        if params.granule == 14 and level == 0 and "stage2-16k-level-0-refused" in choices.deviations:
            params.bad_start = params.bad_start or "start level 0 with the 16K granule"
    params.set_start(level)


def _stage2_start(params: S2Params) -> int:
    """The start level that SL2 and SL0 encode (AArch64_S2StartLevel); meaningless encodings are caught elsewhere."""
    if params.granule == 12:
        return -1 if params.sl2 else (2, 1, 0, 3)[params.sl]
    return FINAL_LEVEL - params.sl


def _bad_start(params: S2Params, level: int, pamax: int, *, small_tables: bool) -> str:
    """Why the start level does not fit, or nothing (AArch64_S2InvalidSL, AArch64_S2InconsistentSL)."""
    code = params.sl2 << 2 | params.sl
    invalid = {
        12: code > 4 or (code == 2 and pamax < 44) or (code == 3 and not small_tables),
        14: (params.sl == 3 and not params.ds) or (params.sl == 2 and pamax < 42),
        16: params.sl == 3 or (params.sl == 2 and pamax < 44),
    }
    if invalid[params.granule]:
        return f"SL2:SL0={code:#b} is not a start level of the {GRANULE_NAMES[params.granule]} granule here"
    low = params.shift(level) + 1
    high = low + params.stride - 1 + 4
    if not low <= params.iasize <= high:
        return f"start level {level} takes {low} to {high} address bits, T0SZ asks for {params.iasize}"
    return ""

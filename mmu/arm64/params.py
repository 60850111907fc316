"""The controls of one stage of translation, gathered from the registers (Arm ARM J1.1, S1TTWParams and S2TTWParams).

`Geometry` is what both stages share: granule, descriptor size, input and output sizes, start level. `S1Params` and
`S2Params` add the controls of a stage. They are built once for a set of registers and half of the address space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...arch.errors import RegisterError
from .access import PASpace
from .features import PA_SIZES, Choices, Features

if TYPE_CHECKING:
    from .system import RegimeName, SystemState

FINAL_LEVEL = 3
TG0 = {0: 12, 1: 16, 2: 14}
TG1 = {2: 12, 3: 16, 1: 14}
GRANULE_NAMES = {12: "4K", 14: "16K", 16: "64K"}


def physical_address_size(features: Features, *, d128: bool, ps: int, granule: int) -> int:
    """The output size in bits that a PS field asks for, capped by what is implemented (AArch64_PhysicalAddressSize)."""
    if "FEAT_D128" in features and d128:
        limit = features.pamax
    elif "FEAT_LPA" not in features or (granule != 16 and "FEAT_LPA2" not in features):
        limit = min(48, features.pamax)
    else:
        limit = min(52, features.pamax)
    return min(PA_SIZES[ps], limit)


def max_txsz(features: Features, granule: int) -> int:
    """The largest TxSZ (AArch64_MaxTxSZ)."""
    return 39 if "FEAT_TTST" not in features else 47 if granule == 16 else 48


@dataclass(slots=True, kw_only=True)
class Geometry:
    """What both stages share. Sizes are in bits; `start_level` and `skl` say where the walk begins."""

    granule: int
    d128: bool
    ds: bool
    txsz: int
    ps: int
    ha: bool
    hd: bool
    haft: bool
    ee: bool
    ttbr: int
    skl: int = 0
    txsz_fault: str = ""
    pamax: int = 48
    lpa: bool = False
    oa_size: int = 48
    desc_log2: int = field(init=False)
    stride: int = field(init=False)
    iasize: int = field(init=False)
    start_level: int = field(init=False, default=0)
    base: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.desc_log2 = 4 if self.d128 else 3
        self.stride = self.granule - self.desc_log2
        self.iasize = 64 - self.txsz

    @property
    def wide_base(self) -> bool:
        """Whether the table base register is in its 52-bit form."""
        return (self.lpa and self.granule == 16 and self.ps == 6) or self.ds

    def natural_start(self) -> int:
        """The start level that the input size asks for, skipped levels included (AArch64_S1StartLevel)."""
        return FINAL_LEVEL - (self.iasize - 1 - self.granule) // self.stride + (self.skl if self.d128 else 0)

    def set_start(self, level: int, *, el3: bool = False) -> None:
        """Fix the start level and with it the base of the start table (AArch64_S1TTBaseAddress)."""
        self.start_level = level
        size = self.iasize - self.shift(level) + self.desc_log2
        if self.d128:
            size = max(size, 5)
            base = self.ttbr & 0x0000_FFFF_FFFF_FFE0
            base |= self.ttbr & 0xFF << 48 if el3 else (self.ttbr >> 80 & 0xFF) << 48
        elif self.wide_base:
            size = max(size, 6)
            base = self.ttbr & 0x0000_FFFF_FFFF_FFC0 | (self.ttbr >> 2 & 0xF) << 48
        else:
            base = self.ttbr & 0x0000_FFFF_FFFF_FFFE
        self.base = base >> size << size if size > 0 else base

    def require(self, level: int) -> None:
        """RegisterError where SKL of the base register leaves no level to look at."""
        if level > FINAL_LEVEL:
            raise RegisterError("SKL skips beyond the last level", field="TTBR", value=self.ttbr)

    def require_start(self) -> int:
        """The start level; one beyond the last is let through, other faults may come before its descriptor."""
        self.require(self.start_level - 1)
        return self.start_level

    def shift(self, level: int) -> int:
        """log2 of what one entry at `level` maps (TranslationSize)."""
        return self.granule + (FINAL_LEVEL - level) * self.stride

    def clamp(self, low: int, high: int, faults_low: bool, faults_high: bool) -> str:
        """Bring TxSZ into `low` to `high`, or say why it faults."""
        if self.txsz < low:
            if faults_low:
                return f"is {self.txsz}, below the minimum {low}"
            self.txsz = low
        elif self.txsz > high:
            if faults_high:
                return f"is {self.txsz}, above the maximum {high}"
            self.txsz = high
        self.iasize = 64 - self.txsz
        return ""


@dataclass(slots=True, kw_only=True)
class S1Params(Geometry):
    """The stage 1 controls of one regime and half of the address space (S1TTWParams)."""

    regime: RegimeName
    upper: int
    tcr: str  # the register, for messages
    epd: bool
    tbi: bool
    tbid: bool
    mtx: bool
    e0pd: bool
    nfd: bool
    hpd: bool
    disch: bool
    pnch: bool
    sh: int
    mair: int
    aie: bool
    wxn: bool
    sif: bool
    nv1: bool
    pie: bool
    pir: int
    pire0: int
    epan: bool
    sif_affects_epan: bool
    realm_affects_epan: bool
    poe: bool
    e0poe: bool
    por: int
    por_el0: int
    icache: bool
    dcache: bool
    default_cacheable: bool


@dataclass(slots=True, kw_only=True)
class S2Params(Geometry):
    """The stage 2 controls (S2TTWParams)."""

    on: bool
    sh: int
    sl: int
    sl2: int
    ptw: bool
    fwb: bool
    s2pie: bool
    s2pir: int
    s2poe: bool
    s2por: int
    assured_only: bool
    tl0: bool
    tl1: bool
    cd: bool
    instruction_cd: bool
    xnx: bool
    bad_start: str = ""
    security: PASpace
    base_space: PASpace
    secure_output: tuple[PASpace, PASpace]  # output space in Secure state, for a Secure and a Non-secure IPA


def stage1_params(system: SystemState, regime: RegimeName, upper: int) -> S1Params:
    """The stage 1 controls of `regime` for the lower (0) or upper (1) range (AArch64_GetS1TTWParams)."""
    from .system import reserved_granule

    features, el = system.features, regime.el
    tcr = f"TCR_EL{el}"
    layout = "TCR_EL2_E2H" if regime.title == "EL2&0" else tcr
    digit = str(upper) if regime.unprivileged else ""
    feature = features.have.__contains__

    def t(name: str) -> int:
        return system.get(tcr, name, layout)

    def ranged(name: str) -> int:
        return t(name + digit)

    def extended(name: str, *, two_range_digit: bool = False) -> int:
        """A field of TCR2_ELx, or of TCR_EL3 where it has them; 0 while TCR2_ELx is not in force."""
        suffix = (digit or "0") if two_range_digit else ""
        if el == 3:
            return t(name + suffix)
        on = system.tcr2_el1_enabled if el == 1 else system.tcr2_el2_enabled
        return system.get(f"TCR2_EL{el}", name + suffix) if on else 0

    encoded = t("TG1" if upper else "TG0")
    granule = (TG1 if upper else TG0).get(encoded)
    epd = regime.unprivileged and bool(ranged("EPD"))
    if granule is None and not epd:
        raise reserved_granule(tcr, "TG1" if upper else "TG0", system.registers.get(tcr, 0))
    granule = granule or 12  # of a half that is off
    d128 = feature("FEAT_D128") and regime.title != "EL2" and bool(extended("D128"))
    pie = d128 or (feature("FEAT_S1PIE") and bool(extended("PIE")))
    ha = feature("FEAT_HAFDBS") and bool(t("HA"))
    nv1 = regime.title == "EL1&0" and system.el2_enabled and bool(system.get("HCR_EL2", "NV1"))
    ps, ttbr = t("IPS" if regime.unprivileged else "PS"), system.registers.get(f"TTBR{upper}_EL{el}", 0)
    poe = feature("FEAT_S1POE") and bool(extended("POE"))
    params = S1Params(
        granule=granule,
        d128=d128,
        ds=granule != 16 and feature("FEAT_LPA2") and bool(t("DS")),
        txsz=t(f"T{upper}SZ"),
        ps=ps,
        ha=ha,
        hd=feature("FEAT_HAFDBS") and bool(t("HD")),
        haft=feature("FEAT_HAFT") and ha and bool(extended("HAFT")),
        ee=bool(system.get(f"SCTLR_EL{el}", "EE")),
        ttbr=ttbr,
        skl=system.get(f"TTBR{upper}_EL{el}", "SKL", "TTBR0_EL1_128") if d128 else 0,
        pamax=features.pamax,
        lpa=feature("FEAT_LPA"),
        oa_size=physical_address_size(features, d128=d128, ps=ps, granule=granule),
        regime=regime,
        upper=upper,
        tcr=tcr,
        epd=epd,
        tbi=bool(ranged("TBI")),
        tbid=bool(ranged("TBID")),
        mtx=feature("FEAT_MTE4") and bool(ranged("MTX")),
        e0pd=regime.unprivileged and feature("FEAT_E0PD") and bool(ranged("E0PD")),
        nfd=regime.unprivileged and bool(ranged("NFD")),
        hpd=feature("FEAT_HPDS") and bool(ranged("HPD")),
        disch=d128 and bool(extended("DisCH", two_range_digit=True)),
        pnch=feature("FEAT_THE") and not d128 and bool(extended("PnCH")),
        sh=t(f"SH{upper}"),
        mair=system.registers.get(f"MAIR_EL{el}", 0) | system.registers.get(f"MAIR2_EL{el}", 0) << 64,
        aie=feature("FEAT_AIE") and bool(extended("AIE")),
        wxn=bool(system.get(f"SCTLR_EL{el}", "WXN")),
        sif=bool(system.get("SCR_EL3", "SIF")) and (not feature("FEAT_RME") or feature("FEAT_SEL2")),
        nv1=nv1,
        pie=pie,
        pir=system.registers.get(f"PIR_EL{el}", 0),
        pire0=0 if nv1 else system.registers.get(f"PIRE0_EL{el}", 0),
        epan=feature("FEAT_PAN3") and (pie or (regime.unprivileged and bool(system.get(f"SCTLR_EL{el}", "EPAN")))),
        sif_affects_epan=system.choices.sif_affects_epan,
        realm_affects_epan=system.choices.realm_affects_epan,
        poe=poe,
        e0poe=regime.unprivileged and feature("FEAT_S1POE") and not nv1 and bool(extended("E0POE")),
        por=system.registers.get(f"POR_EL{el}", 0),
        por_el0=system.registers.get("POR_EL0", 0),
        icache=bool(system.get(f"SCTLR_EL{el}", "I")),
        dcache=bool(system.get(f"SCTLR_EL{el}", "C")),
        default_cacheable=system.two_stages(regime) and bool(system.get("HCR_EL2", "DC")),
    )
    low = _stage1_min_txsz(features, params)
    choices = system.choices
    faults_low = feature("FEAT_LVA") or choices.txsz_below_min_faults
    params.txsz_fault = params.clamp(low, max_txsz(features, granule), faults_low, choices.txsz_above_max_faults)
    if not params.txsz_fault:
        params.set_start(params.natural_start(), el3=el == 3)
    return params


def _stage1_min_txsz(features: Features, params: S1Params) -> int:
    """The smallest TxSZ (AArch64_S1MinTxSZ)."""
    if "FEAT_LVA3" in features and params.d128:
        return 9 if params.regime.unprivileged else 8
    return 12 if params.ds or ("FEAT_LVA" in features and params.granule == 16) else 16


def stage2_params(system: SystemState, security: PASpace, ipa_space: PASpace) -> S2Params:
    """The stage 2 controls for an IPA of `ipa_space` (AArch64_GetS2TTWParams)."""
    from .system import reserved_granule

    features, feature = system.features, system.features.have.__contains__
    secure = security is PASpace.Secure
    own = secure and ipa_space is PASpace.Secure  # VSTCR_EL2 holds the geometry, VTCR_EL2 the rest
    sizes, base = ("VSTCR_EL2", "VSTTBR_EL2") if own else ("VTCR_EL2", "VTTBR_EL2")

    def v(name: str) -> int:
        return system.get("VTCR_EL2", name)

    def h(name: str) -> bool:
        return bool(system.get("HCR_EL2", name))

    granule = TG0.get(system.get(sizes, "TG0"))
    if granule is None:
        raise reserved_granule(sizes, "TG0", system.registers.get(sizes, 0))
    d128 = feature("FEAT_D128") and bool(v("D128"))
    ds = granule != 16 and feature("FEAT_LPA2") and bool(v("DS"))
    ha = feature("FEAT_HAFDBS") and bool(v("HA"))
    ttbr = system.registers.get(base, 0)
    sw, nsw = system.get("VSTCR_EL2", "SW"), v("NSW")
    sa, nsa = system.get("VSTCR_EL2", "SA"), v("NSA")
    space = security
    if secure and (sw if own else nsw):
        space = PASpace.NonSecure
    params = S2Params(
        granule=granule,
        d128=d128,
        ds=ds,
        txsz=system.get(sizes, "T0SZ"),
        ps=v("PS"),
        ha=ha,
        hd=feature("FEAT_HAFDBS") and bool(v("HD")),
        haft=feature("FEAT_HAFT") and ha and bool(v("HAFT")),
        ee=bool(system.get("SCTLR_EL2", "EE")),
        ttbr=ttbr,
        skl=system.get(base, "SKL", "TTBR0_EL1_128") if d128 else 0,
        pamax=features.pamax,
        lpa=feature("FEAT_LPA"),
        oa_size=physical_address_size(features, d128=d128, ps=v("PS"), granule=granule),
        on=h("VM") or h("DC"),
        sh=v("SH0"),
        sl=system.get(sizes, "SL0"),
        sl2=system.get(sizes, "SL2") & v("DS") if granule == 12 and feature("FEAT_LPA2") else 0,
        ptw=h("PTW") and not h("TGE"),
        fwb=feature("FEAT_S2FWB") and h("FWB"),
        s2pie=d128 or (feature("FEAT_S2PIE") and bool(v("S2PIE"))),
        s2pir=system.registers.get("S2PIR_EL2", 0) if feature("FEAT_S2PIE") else 0,
        s2poe=feature("FEAT_S2POE") and bool(v("S2POE")),
        s2por=system.registers.get("S2POR_EL1", 0),
        assured_only=feature("FEAT_THE") and not d128 and bool(v("AssuredOnly")),
        tl0=feature("FEAT_THE") and bool(v("TL0")),
        tl1=feature("FEAT_THE") and bool(v("TL1")),
        cd=h("CD"),
        instruction_cd=h("ID"),
        xnx=feature("FEAT_XNX"),
        security=security,
        base_space=space,
        secure_output=(
            PASpace.NonSecure if sw or sa else PASpace.Secure,
            PASpace.NonSecure if sw or sa or nsw or nsa else PASpace.Secure,
        ),
    )
    _finish_stage2(params, features, system.choices)
    return params


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

"""The controls of one stage of translation, gathered from the registers (Arm ARM J1.1, S1TTWParams and S2TTWParams).

`Geometry` is what both stages share: granule, descriptor size, input and output sizes, start level. `S1Params` and
`S2Params` add the controls of a stage; `controls` builds them from the registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...arch.errors import RegisterError
from .access import PASpace
from .features import PA_SIZES, Features

if TYPE_CHECKING:
    from .system import RegimeName

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

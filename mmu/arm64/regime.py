"""`Arm64Regime`: the EL1&0 translation regime (or EL2, EL2&0, EL3) built from register values and validated."""

from __future__ import annotations

from collections.abc import Mapping

from ...arch.arm64.registers import LAYOUTS
from ...arch.errors import InputError, RegisterError
from ..memory import Memory
from ..regime import Entry, EntryType, Tree
from ..walk import Access, Level, Walk
from . import bbm, entries
from .access import Arm64Access
from .entries import Kind
from .features import FEATURES, PA_SIZES, PROFILES, Choices, Features
from .params import FINAL_LEVEL, GRANULE_NAMES, TG0, TG1, S1Params
from .stage1 import LINUX_NAMES
from .system import RegimeName, SystemState
from .walk import full_translate

_TCR, _TCR2 = LAYOUTS["TCR_EL1"], LAYOUTS["TCR2_EL1"]
_SCR_DEFAULT = LAYOUTS["SCR_EL3"].build(NS=1, RW=1, HXEn=1, TCR2En=1, PIEn=1, AIEn=1, D128En=1, SCTLR2En=1)
_HCRX_DEFAULT = LAYOUTS["HCRX_EL2"].build(TCR2En=1, D128En=1)
_SCTLR_DEFAULT = LAYOUTS["SCTLR_EL1"].build(M=1, C=1, I=1)
# ID register, field, least value, feature
_IDENTIFIED = (
    ("ID_AA64MMFR1_EL1", "HAFDBS", 1, "FEAT_HAFDBS"),
    ("ID_AA64MMFR1_EL1", "HAFDBS", 3, "FEAT_HAFT"),
    ("ID_AA64MMFR1_EL1", "HPDS", 1, "FEAT_HPDS"),
    ("ID_AA64MMFR1_EL1", "PAN", 3, "FEAT_PAN3"),
    ("ID_AA64MMFR1_EL1", "XNX", 1, "FEAT_XNX"),
    ("ID_AA64MMFR1_EL1", "HCX", 1, "FEAT_HCX"),
    ("ID_AA64MMFR2_EL1", "VARange", 1, "FEAT_LVA"),
    ("ID_AA64MMFR2_EL1", "VARange", 2, "FEAT_LVA3"),
    ("ID_AA64MMFR2_EL1", "ST", 1, "FEAT_TTST"),
    ("ID_AA64MMFR2_EL1", "FWB", 1, "FEAT_S2FWB"),
    ("ID_AA64MMFR2_EL1", "E0PD", 1, "FEAT_E0PD"),
    ("ID_AA64MMFR3_EL1", "TCRX", 1, "FEAT_TCR2"),
    ("ID_AA64MMFR3_EL1", "S1PIE", 1, "FEAT_S1PIE"),
    ("ID_AA64MMFR3_EL1", "S2PIE", 1, "FEAT_S2PIE"),
    ("ID_AA64MMFR3_EL1", "S1POE", 1, "FEAT_S1POE"),
    ("ID_AA64MMFR3_EL1", "S2POE", 1, "FEAT_S2POE"),
    ("ID_AA64MMFR3_EL1", "AIE", 1, "FEAT_AIE"),
    ("ID_AA64MMFR3_EL1", "D128", 1, "FEAT_D128"),
)
_TCR2_FEATURES = {"PIE": "FEAT_S1PIE", "POE": "FEAT_S1POE", "E0POE": "FEAT_S1POE", "AIE": "FEAT_AIE",
                  "D128": "FEAT_D128", "HAFT": "FEAT_HAFT", "PnCH": "FEAT_THE"}  # fmt: skip


def implied_features(registers: Mapping[str, int]) -> dict[str, int]:
    """The least set of features, and the physical address size, with which these register values make sense.

    >>> implied_features({"TCR_EL1": 1 << 59 | 6 << 32, "TCR2_EL1": 2})["pamax"]
    52
    """
    tcr = _TCR.decode(registers.get("TCR_EL1", 0))
    found: set[str] = set()
    granules = {TG0.get(tcr["TG0"], 0), TG1.get(tcr["TG1"], 0)}
    wide = tcr["IPS"] == 6 and (16 in granules or tcr["DS"])
    found |= {"FEAT_LPA2", "FEAT_LPA", "FEAT_LVA"} if tcr["DS"] else set()
    found |= {"FEAT_LPA"} if wide else set()
    found |= {"FEAT_LVA"} if 16 in granules and min(tcr["T0SZ"], tcr["T1SZ"]) < 16 else set()
    found |= {"FEAT_TTST"} if max(tcr["T0SZ"], tcr["T1SZ"]) > 39 else set()
    found |= {"FEAT_HAFDBS"} if tcr["HA"] or tcr["HD"] else set()
    found |= {"FEAT_HPDS"} if tcr["HPD0"] or tcr["HPD1"] else set()
    found |= {"FEAT_E0PD"} if tcr["E0PD0"] or tcr["E0PD1"] else set()
    found |= {"FEAT_PAN3"} if LAYOUTS["SCTLR_EL1"]["EPAN"].get(registers.get("SCTLR_EL1", 0)) else set()
    found |= {"FEAT_S2FWB"} if LAYOUTS["HCR_EL2"]["FWB"].get(registers.get("HCR_EL2", 0)) else set()
    tcr2 = registers.get("TCR2_EL1", 0)
    extended = {feature for name, feature in _TCR2_FEATURES.items() if _TCR2[name].get(tcr2)}
    found |= extended | ({"FEAT_TCR2", "FEAT_HCX"} if extended else set())
    pamax = 52 if wide else min(PA_SIZES[tcr["IPS"]], 56 if "FEAT_D128" in found else 48)
    return {"pamax": pamax, **dict.fromkeys(sorted(found), 1)}


def identified_features(registers: Mapping[str, int]) -> dict[str, int]:
    """The features and the physical address size that ID registers state, as far as they are given.

    >>> identified_features({"ID_AA64MMFR0_EL1": 0x32310201126})
    {'pamax': 52, 'FEAT_LPA': 1, 'FEAT_LPA2': 1}
    """
    found: dict[str, int] = {}
    if "ID_AA64MMFR0_EL1" in registers:
        fields = LAYOUTS["ID_AA64MMFR0_EL1"].decode(registers["ID_AA64MMFR0_EL1"])
        if fields["PARange"] < len(PA_SIZES):
            found["pamax"] = PA_SIZES[fields["PARange"]]
        found |= {"FEAT_LPA": 1} if fields["PARange"] >= 6 else {}
        found |= {"FEAT_LPA2": 1} if fields["TGran4"] == 1 or fields["TGran16"] == 2 else {}
    for register, name, least, feature in _IDENTIFIED:
        if register in registers and LAYOUTS[register][name].get(registers[register]) >= least:
            found[feature] = 1
    return found


class Arm64Regime:
    """A translation regime of an arm64 processor; see `mmu.regime.Regime`.

    >>> tcr = LAYOUTS["TCR_EL1"].build(T0SZ=25, T1SZ=25, TG1=2, IPS=2)
    >>> regime = Arm64Regime.from_registers({"TCR_EL1": tcr, "TTBR0_EL1": 0x4000_0000, "TTBR1_EL1": 0x4001_0000})
    >>> [(tree.register, hex(tree.root), [level.linux_name for level in tree.levels]) for tree in regime.trees]
    [('TTBR0_EL1', '0x40000000', ['PGD', 'PMD', 'PTE']), ('TTBR1_EL1', '0x40010000', ['PGD', 'PMD', 'PTE'])]
    """

    arch = "arm64"

    def __init__(self, system: SystemState, el: int = 1, implied: tuple[str, ...] = ()) -> None:
        self.system, self.implied, self.name = system, implied, system.regime(el)
        self.halves: dict[int, S1Params] = {}
        if system.stage1_on(self.name):
            ranges = (0, 1) if self.name.unprivileged else (0,)
            for upper in ranges:
                if not self._disabled(upper):
                    self.halves[upper] = self._checked(system.stage1(self.name, upper << 55), upper)
        self._trees = tuple(_tree(self.name, params) for params in self.halves.values())

    @classmethod
    def from_registers(
        cls,
        registers: Mapping[str, int],
        features: Mapping[str, int | str] | None = None,
        choices: Choices = PROFILES["arm"],
        el: int = 1,
    ) -> Arm64Regime:
        """The regime for accesses at Exception level `el`.

        `registers` maps the manual's names to values. A missing SCTLR_ELx reads as translation on, a missing SCR_EL3
        as Non-secure; without TTBR1_EL1 the upper half is off. `features` (FEAT_... and `pamax`) may be empty: what ID
        registers state and what the control registers imply is added, unless it is given. RegisterError for
        combinations that the architecture leaves undefined.
        """
        values = {"SCR_EL3": _SCR_DEFAULT, "HCRX_EL2": _HCRX_DEFAULT, f"SCTLR_EL{el}": _SCTLR_DEFAULT, **registers}
        if f"TCR_EL{el}" not in values:
            raise RegisterError(f"no walk without TCR_EL{el}", field=f"TCR_EL{el}")
        for name, value in values.items():
            if value < 0 or value >> (128 if name.startswith(("TTBR", "VTTBR")) else 64):
                raise RegisterError("the value does not fit the register", field=name, value=value)
        if el == 1 and "TTBR1_EL1" not in values:
            values["TCR_EL1"] |= _TCR.mask("EPD1")  # no table, no walk
        given = {key: value for key, value in (features or {}).items() if key == "pamax" or key in FEATURES}
        given = {**identified_features(values), **given}
        implied = {key: value for key, value in implied_features(values).items() if key not in given}
        have = Features.make({**implied, **given})
        return cls(SystemState(values, have, choices), el, tuple(sorted(implied)))

    def _disabled(self, upper: int) -> bool:
        """Whether TCR_ELx.EPDn turns this half off."""
        tcr = f"TCR_EL{self.name.el}"
        return self.name.unprivileged and bool(self.system.get(tcr, f"EPD{upper}", "TCR_EL1"))

    def _checked(self, params: S1Params, upper: int) -> S1Params:
        if params.txsz_fault:
            raise RegisterError(f"T{upper}SZ {params.txsz_fault}", field=params.tcr, value=params.txsz)
        if params.base >> params.oa_size:
            text = f"the table base lies beyond the {params.oa_size} address bits in force"
            raise RegisterError(text, field=f"TTBR{upper}_EL{self.name.el}", value=params.base)
        return params

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The trees of TTBR0 and TTBR1; none where translation is off, or for a half that EPDn turns off."""
        return self._trees

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Walk `va`, one step an entry; `update` writes the access flag and dirty state back as hardware would."""
        if not 0 <= va < 1 << 64:
            raise InputError("a virtual address has 64 bits", field="va", value=va)
        return full_translate(self.system, memory, va, Arm64Access.of(access), update=update)

    def half(self, level: Level) -> S1Params:
        """The half of the address space whose tables have this level (they may differ in granule)."""
        for params in self.halves.values():
            if params.shift(level.number) == level.shift:
                return params
        raise InputError("no table of this regime has such a level", field="level", value=level.number)

    def classify(self, level: Level, raw: int) -> Entry:
        """What the hardware makes of the entry `raw` found at `level`; a leaf's `pa` is the address in the entry."""
        params = self.half(level)
        kind = entries.kind_of(params, raw, level.number)
        layout = entries.layout_of(params, raw, level.number, 1)
        if kind is Kind.INVALID:
            return Entry(EntryType.RESERVED if raw & entries.VALID else EntryType.NONE, 0, layout)
        table = kind is Kind.TABLE
        pa = entries.table_address(params, raw) if table else entries.leaf_address(params, raw, level.number)
        if pa >> params.oa_size:
            return Entry(EntryType.RESERVED, pa, layout)
        return Entry(EntryType.TABLE if table else EntryType.LEAF, pa, layout)

    def contiguous_entries(self, level: Level, raw: int) -> int:
        """How many neighbouring entries the Contiguous bit of a leaf joins; 1 where it is clear or ignored."""
        return 1 << entries.contiguous_log2(self.half(level), raw, level.number)

    def break_before_make(self, level: Level, old: int, new: int) -> bbm.Verdict:
        """Whether the entry `old` at `level` may be overwritten by `new` while it is live."""
        bbm_level = self.system.choices.bbm_level if "FEAT_BBM" in self.system.features else 0
        return bbm.check(old, new, level.number, self.half(level), bbm_level=bbm_level)

    def describe(self) -> Mapping[str, object]:
        """Mode, widths and switches in the manual's names."""
        told: dict[str, object] = {"regime": self.name.title, "translation": "on" if self.halves else "off"}
        for upper, params in self.halves.items():
            told[f"TTBR{upper}"] = {
                "granule": GRANULE_NAMES[params.granule],
                "input address bits": params.iasize,
                "output address bits": params.oa_size,
                "start level": params.start_level,
                "root": f"{params.base:#018x}",
                "descriptor bits": 1 << params.desc_log2 + 3,
                "switches": [name for name in _SWITCHES if getattr(params, name.lower())],
            }
        told["stage 2"] = "on" if self.two_stages else "off"
        told["pamax"] = self.system.features.pamax
        told["features"] = sorted(self.system.features.have)
        told["implied by the registers"] = list(self.implied)
        return told

    @property
    def two_stages(self) -> bool:
        """Whether stage 2 translates the output of stage 1."""
        on = self.system.get("HCR_EL2", "VM") or self.system.get("HCR_EL2", "DC")
        return bool(on) and self.system.two_stages(self.name)


_SWITCHES = ("DS", "HA", "HD", "HAFT", "TBI", "TBID", "E0PD", "HPD", "WXN", "EPAN", "PIE", "POE", "E0POE", "EE", "NV1")


def _tree(name: RegimeName, params: S1Params) -> Tree:
    levels = []
    for number in range(params.start_level, FINAL_LEVEL + 1):
        root = number == params.start_level
        width = params.iasize - params.shift(number) if root else params.stride
        linux = "PGD" if root else LINUX_NAMES.get(number, "")
        leaf = params.d128 or number == FINAL_LEVEL or entries.block_supported(params, number)
        levels.append(Level(number, f"L{number}", linux, params.shift(number), width, leaf))
    size = 1 << params.iasize
    start, end = ((1 << 64) - size, 1 << 64) if params.upper else (0, size)
    return Tree(f"TTBR{params.upper}_EL{name.el}", params.base, tuple(levels), start, end, 1 << params.desc_log2)

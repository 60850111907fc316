"""x86 translation regimes: control registers in, a validated walk plan out (Intel SDM volume 3A chapter 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...arch.errors import RegisterError
from ...arch.layout import RES0, Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.registers import CR0, CR3, CR4, EFER, HLATP, RFLAGS
from ..memory import Memory
from ..regime import Entry, EntryType, Tree
from ..walk import Access, Level, Rights, Walk
from .modes import OFF, PAE, Mode, legacy, long_mode
from .profiles import Profile, profile

_PS, _P, _XD = entries.PDE["PS"].mask, entries.PTE["P"].mask, entries.PTE["XD"].mask
_BIT8 = entries.PDE_2M["G"].mask
_ADDR_39_32 = entries.PDE32_4M["ADDR_39_32"]
_PAE_BASE = (1 << 32) - 32  # CR3 bits 31:5 (Intel SDM volume 3A table 5-7)
_DEFAULTS = {
    "CR0": CR0.build(PE=1, WP=1, PG=1),
    "CR4": CR4.build(PAE=1),
    "EFER": EFER.build(LME=1, LMA=1, NXE=1),
    "RFLAGS": 2,
    "PKRU": 0,
    "PKRS": 0,
    "IA32_PAT": 0x0007_0406_0007_0406,  # the value at reset (Intel SDM volume 3A 13.12.4)
}
_OPTIONAL = ("HLATP", "HLAT_PREFIX_SIZE")
_SAID = ("CR0", "CR4", "EFER")  # what else is assumed changes nothing or is said by `describe`
_FEATURES: dict[str, int | str] = {
    "maxphyaddr": 52, "gbpages": 1, "vendor": "", "c_bit": 0, "sev_reduction": 0, "shared_bit": 0,
    "profile": "architecture",
}  # fmt: skip
_SWITCHES = (
    (CR0, ("WP",)), (CR4, ("PSE", "PGE", "PCIDE", "SMEP", "SMAP", "PKE", "CET", "PKS", "LASS", "LAM_SUP")),
    (CR3, ("LAM_U48", "LAM_U57")), (EFER, ("NXE",)), (RFLAGS, ("AC",)),
)  # fmt: skip


@dataclass(frozen=True)
class X86Regime:
    """A walk plan: the mode, the registers that decide, and the processor's properties.

    >>> regime = X86Regime.from_registers({"CR3": 0x1000}, {"maxphyaddr": 46})
    >>> regime.mode.name, [level.name for level in regime.levels], hex(regime.trees[1].va_start)
    ('4-level paging', ['PML4E', 'PDPTE', 'PDE', 'PTE'], '0xffff800000000000')
    """

    registers: Mapping[str, int]
    mode: Mode
    maxphyaddr: int
    vendor: str
    c_bit: int = 0
    sev_reduction: int = 0
    shared_bit: int = 0
    profile: Profile = field(default_factory=lambda: profile("architecture"))
    assumed: tuple[str, ...] = ()
    arch: str = field(default="x86_64", init=False)
    rights_of: dict[tuple[bool, bool, bool, int], Rights] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_registers(cls, registers: Mapping[str, int], features: Mapping[str, int | str]) -> X86Regime:
        """Build and check; what the registers lack gets the defaults that `describe()["assumed"]` names.

        Features: `maxphyaddr` (32 to 52), `gbpages` (1-GByte pages, CPUID 80000001H:EDX[26]), `vendor` (`intel` or
        `amd`: there bit 8 is reserved in upper entries), `c_bit` (SEV: position of the encryption bit, 0 for none),
        `sev_reduction` (physical address bits lost to SEV, CPUID 8000001FH:EBX[11:6]), `shared_bit` (TDX: GPAW - 1),
        `profile` (see `profiles`). HLATP and HLAT_PREFIX_SIZE among the registers switch HLAT paging on.
        RegisterError where CR3 is missing or a value is undefined.
        """
        if unknown := set(features) - set(_FEATURES):
            raise RegisterError(f"x86 walks know no such feature ({', '.join(_FEATURES)})", field=min(unknown))
        value = {name: registers.get(name, default) for name, default in _DEFAULTS.items()}
        value |= {name: registers[name] for name in _OPTIONAL if name in registers}
        feature = {**_FEATURES, **features}
        behaviour = profile(str(feature["profile"]))
        mode = _mode(value, bool(feature["gbpages"]) or behaviour.always_gbpages)
        if "CR3" not in registers and mode is not OFF:
            raise RegisterError("no root: the registers lack CR3", field="CR3")
        value["CR3"] = registers.get("CR3", 0)
        regime = cls(
            value, mode, int(feature["maxphyaddr"]), str(feature["vendor"]) or behaviour.vendor, int(feature["c_bit"]),
            int(feature["sev_reduction"]), int(feature["shared_bit"]), behaviour,
            tuple(name for name in _SAID if name not in registers),
        )  # fmt: skip
        _check_features(regime)
        _check_registers(regime)
        return regime

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.mode.levels

    @cached_property
    def is_long(self) -> bool:
        return self.mode.va_bits > 32

    @cached_property
    def root(self) -> int:
        """The address of the root table, without PCID or cache bits and without the C-bit."""
        cr3 = self.registers["CR3"]
        if self.mode is PAE:
            return cr3 & _PAE_BASE
        base = cr3 & CR3.address_mask & ~self.stolen
        return base if self.is_long else base & (1 << 32) - 1

    @cached_property
    def hlat_root(self) -> int | None:
        """The root of hypervisor-managed translation (HLATP), None where HLAT is off."""
        if "HLATP" not in self.registers or not self.is_long:
            return None
        return self.registers["HLATP"] & HLATP.address_mask

    def uses_hlat(self, va: int) -> bool:
        """Whether HLAT paging translates `va`: its highest HLAT_PREFIX_SIZE bits are all 1 (Intel SDM 3A 5.5.1)."""
        size = self.registers.get("HLAT_PREFIX_SIZE", 0)
        return self.hlat_root is not None and va >> 64 - size == (1 << size) - 1

    @property
    def c_mask(self) -> int:
        """The bit that SEV takes out of every address, as a mask."""
        return 1 << self.c_bit if self.c_bit else 0

    @cached_property
    def stolen(self) -> int:
        """The address bits that say something else: SEV's C-bit, TDX's shared bit."""
        return self.c_mask | (1 << self.shared_bit if self.shared_bit else 0)

    @cached_property
    def on(self) -> frozenset[str]:
        """The switches that are set, by name: WP, SMEP, NXE ..."""
        pairs = ((layout, name) for layout, names in _SWITCHES for name in names)
        return frozenset(name for layout, name in pairs if self.registers[layout.name] & layout[name].mask)

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Two halves of one root in long mode; none with paging off, or under HLAT, where two roots share the space."""
        size = self.mode.entry_size
        if self.mode is OFF or self.hlat_root is not None:
            return ()
        if not self.is_long:
            return (Tree("CR3", self.root, self.levels, 0, 1 << 32, size),)
        half = 1 << self.mode.va_bits - 1
        low = Tree("CR3", self.root, self.levels, 0, half, size)
        return low, Tree("CR3", self.root, self.levels, (1 << 64) - half, 1 << 64, size)

    @cached_property
    def reserved_masks(self) -> dict[str, int]:
        """By layout name the bits that make a present entry fault: RES0, addresses beyond MAXPHYADDR, XD if not NXE."""
        masks = {}
        width = self.maxphyaddr - self.sev_reduction
        for layout in (*self.mode.tables.values(), *self.mode.leaves.values()):
            beyond = layout.address_mask >> width << width
            masks[layout.name] = (layout.role_mask(RES0) | beyond) & ~self.stolen
            if "XD" in layout and "NXE" not in self.on:
                masks[layout.name] |= _XD
            if layout is entries.PDE32_4M and width < 40:  # PSE-36 reaches up to MAXPHYADDR (SDM 3A table 5-4)
                masks[layout.name] |= _ADDR_39_32.mask >> (width - 32) + 13 << (width - 32) + 13
        if self.mode is PAE and self.profile.pdpte_accessed:
            masks[entries.PAE_PDPTE.name] &= ~entries.PTE["A"].mask
        if self.vendor == "amd" and self.is_long:
            for layout in (entries.PML5E, entries.PML4E, entries.PDPTE):  # AMD APM volume 2 5.3.3
                masks[layout.name] |= _BIT8
        return masks

    def layout(self, level: Level, raw: int) -> Layout:
        """How an entry found at `level` is to be read: as a leaf at the last level, or where PS is set and counts."""
        if level.number == 1 or (raw & _PS and level.number in self.mode.leaves):
            return self.mode.leaves[level.number]
        return self.mode.tables[level.number]

    def reserved(self, level: Level, raw: int) -> int:
        """The set reserved bits of a present entry (Intel SDM volume 3A 5.7)."""
        bits = raw & self.reserved_masks[self.layout(level, raw).name]
        forbidden = self.is_long and level.number > 1 and not level.leaf
        return bits | (raw & _PS if forbidden else 0)

    def is_leaf(self, level: Level, raw: int) -> bool:
        """Whether a present entry maps memory itself."""
        return level.number == 1 or (level.leaf and bool(raw & _PS))

    def address(self, level: Level, raw: int) -> int:
        """The address in a present entry without reserved bits: the next table's, or the page's."""
        layout = self.layout(level, raw)
        pa = raw & layout.address_mask & ~self.stolen
        return pa | _ADDR_39_32.get(raw) << 32 if layout is entries.PDE32_4M else pa

    def classify(self, level: Level, raw: int) -> Entry:
        """What the hardware makes of the entry `raw` found at `level`."""
        layout = self.layout(level, raw)
        if not raw & _P:
            return Entry(EntryType.NONE, 0, layout)
        if self.reserved(level, raw):
            return Entry(EntryType.RESERVED, 0, layout)
        kind = EntryType.LEAF if self.is_leaf(level, raw) else EntryType.TABLE
        return Entry(kind, self.address(level, raw), layout)

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Walk `va`; see `mmu.x86_64.walk`."""
        from .access import X86Access
        from .walk import walk

        return walk(self, memory, va, X86Access.of(access), update=update)

    def describe(self) -> Mapping[str, object]:
        """Mode, widths and the switches that are on."""
        told: dict[str, object] = {
            "mode": self.mode.name,
            "va_bits": self.mode.va_bits,
            "maxphyaddr": self.maxphyaddr,
            "root": f"{self.root:#x}",
            "switches": " ".join(name for _, names in _SWITCHES for name in names if name in self.on),
            "assumed": " ".join(self.assumed) or "nothing",
        }
        if self.profile.name != "architecture":
            told["profile"] = self.profile.name
        if self.hlat_root is not None:
            told["hlat_root"] = f"{self.hlat_root:#x}"
        return told


def _mode(value: Mapping[str, int], gbpages: bool) -> Mode:
    cr0, cr4, efer = value["CR0"], value["CR4"], value["EFER"]
    paging, protected = cr0 & CR0.mask("PG"), cr0 & CR0.mask("PE")
    if paging and not protected:
        raise RegisterError("CR0.PG=1 needs CR0.PE=1", field="CR0", value=cr0)
    if not paging:
        if efer & EFER.mask("LMA"):
            raise RegisterError("EFER.LMA=1 needs CR0.PG=1", field="EFER", value=efer)
        return OFF
    pae = bool(cr4 & CR4.mask("PAE"))
    if bool(efer & EFER.mask("LMA")) != bool(efer & EFER.mask("LME")):
        raise RegisterError("with paging on, EFER.LMA equals EFER.LME", field="EFER", value=efer)
    if not efer & EFER.mask("LMA"):
        return PAE if pae else legacy(bool(cr4 & CR4.mask("PSE")))
    if not pae:
        raise RegisterError("long mode needs CR4.PAE=1", field="CR4", value=cr4)
    return long_mode(5 if cr4 & CR4.mask("LA57") else 4, gbpages)


def _check_features(regime: X86Regime) -> None:
    if not 32 <= regime.maxphyaddr <= 52:
        raise RegisterError("MAXPHYADDR lies between 32 and 52", field="maxphyaddr", value=regime.maxphyaddr)
    if regime.vendor not in ("intel", "amd"):
        raise RegisterError("the vendor is intel or amd", field="vendor", value=regime.vendor)
    for name in ("c_bit", "shared_bit"):
        position = getattr(regime, name)
        if position and not 32 <= position <= 51:
            raise RegisterError("the bit lies between 32 and 51", field=name, value=position)
    if not 0 <= regime.sev_reduction <= regime.maxphyaddr - 32:
        raise RegisterError("leaves less than 32 address bits", field="sev_reduction", value=regime.sev_reduction)


def _check_registers(regime: X86Regime) -> None:
    """What MOV to a control register would have refused."""
    value = regime.registers
    for name, x in value.items():
        if not 0 <= x < 1 << 64:
            raise RegisterError("not a 64-bit value", field=name, value=x)
    if regime.root >> regime.maxphyaddr:
        raise RegisterError(f"the root lies beyond MAXPHYADDR={regime.maxphyaddr}", field="CR3", value=value["CR3"])
    if regime.is_long and value["CR3"] & CR3.role_mask(RES0):
        raise RegisterError("bits 60:52 are reserved", field="CR3", value=value["CR3"])
    if "CET" in regime.on and "WP" not in regime.on:
        raise RegisterError("CR4.CET=1 needs CR0.WP=1", field="CR4", value=value["CR4"])
    if "PCIDE" in regime.on and not regime.is_long:
        raise RegisterError("CR4.PCIDE=1 needs long mode", field="CR4", value=value["CR4"])
    if value.get("HLAT_PREFIX_SIZE", 0) > 52:
        raise RegisterError("not more than 52 bits", field="HLAT_PREFIX_SIZE", value=value["HLAT_PREFIX_SIZE"])
    if (regime.hlat_root or 0) >> regime.maxphyaddr:
        raise RegisterError(f"lies beyond MAXPHYADDR={regime.maxphyaddr}", field="HLATP", value=value["HLATP"])

"""x86 translation regimes: control registers in, a validated walk plan out (Intel SDM volume 3A chapter 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...arch.errors import RegisterError
from ...arch.layout import RES0, Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.registers import CR0, CR3, CR4, EFER, RFLAGS
from ..memory import Memory
from ..regime import Entry, EntryType, Tree
from ..walk import Access, Level, Walk
from .modes import PAE, Mode, legacy, long_mode

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
_SAID = ("CR0", "CR4", "EFER")  # what else is assumed changes nothing or is said by `describe`
_FEATURES: dict[str, int | str] = {"maxphyaddr": 52, "gbpages": 1, "vendor": "intel", "c_bit": 0}
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
    c_bit: int
    assumed: tuple[str, ...] = ()
    arch: str = field(default="x86_64", init=False)

    @classmethod
    def from_registers(cls, registers: Mapping[str, int], features: Mapping[str, int | str]) -> X86Regime:
        """Build and check; what the registers lack gets the defaults that `describe()["assumed"]` names.

        Features: `maxphyaddr` (32 to 52), `gbpages` (1-GByte pages, CPUID 80000001H:EDX[26]), `vendor` (`intel` or
        `amd`: there bit 8 is reserved in upper entries), `c_bit` (SEV: position of the encryption bit, 0 for none).
        RegisterError where CR3 is missing, paging is off, or a value is undefined.
        """
        if "CR3" not in registers:
            raise RegisterError("no root: the registers lack CR3", field="CR3")
        value = {name: registers.get(name, default) for name, default in _DEFAULTS.items()}
        value["CR3"] = registers["CR3"]
        if unknown := set(features) - set(_FEATURES):
            raise RegisterError(f"x86 walks know no such feature ({', '.join(_FEATURES)})", field=min(unknown))
        feature = {**_FEATURES, **features}
        maxphyaddr, vendor = int(feature["maxphyaddr"]), str(feature["vendor"])
        if not 32 <= maxphyaddr <= 52:
            raise RegisterError("MAXPHYADDR lies between 32 and 52", field="maxphyaddr", value=maxphyaddr)
        if vendor not in ("intel", "amd"):
            raise RegisterError("the vendor is intel or amd", field="vendor", value=vendor)
        mode = _mode(value, bool(feature["gbpages"]))
        assumed = tuple(name for name in _SAID if name not in registers)
        regime = cls(value, mode, maxphyaddr, vendor, int(feature["c_bit"]), assumed)
        if regime.root >> maxphyaddr:
            raise RegisterError(f"the root lies beyond MAXPHYADDR={maxphyaddr}", field="CR3", value=value["CR3"])
        return regime

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.mode.levels

    @property
    def is_long(self) -> bool:
        return self.mode.va_bits > 32

    @cached_property
    def root(self) -> int:
        """The address of the root table, without PCID or cache bits and without the C-bit."""
        cr3 = self.registers["CR3"]
        if self.mode is PAE:
            return cr3 & _PAE_BASE
        base = cr3 & CR3.address_mask & ~self.c_mask
        return base if self.is_long else base & (1 << 32) - 1

    @property
    def c_mask(self) -> int:
        """The bit that SEV takes out of every address, as a mask."""
        return 1 << self.c_bit if self.c_bit else 0

    @cached_property
    def on(self) -> frozenset[str]:
        """The switches that are set, by name: WP, SMEP, NXE ..."""
        pairs = ((layout, name) for layout, names in _SWITCHES for name in names)
        return frozenset(name for layout, name in pairs if self.registers[layout.name] & layout[name].mask)

    @property
    def trees(self) -> tuple[Tree, ...]:
        size = self.mode.entry_size
        if not self.is_long:
            return (Tree("CR3", self.root, self.levels, 0, 1 << 32, size),)
        half = 1 << self.mode.va_bits - 1
        low = Tree("CR3", self.root, self.levels, 0, half, size)
        return low, Tree("CR3", self.root, self.levels, (1 << 64) - half, 1 << 64, size)

    @cached_property
    def _reserved(self) -> dict[str, int]:
        """By layout name the bits that make a present entry fault: RES0, addresses beyond MAXPHYADDR, XD if not NXE."""
        masks = {}
        for layout in (*self.mode.tables.values(), *self.mode.leaves.values()):
            beyond = layout.address_mask >> self.maxphyaddr << self.maxphyaddr & ~self.c_mask
            masks[layout.name] = layout.role_mask(RES0) & ~self.c_mask | beyond
            if "XD" in layout and "NXE" not in self.on:
                masks[layout.name] |= _XD
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
        bits = raw & self._reserved[self.layout(level, raw).name]
        forbidden = self.is_long and level.number > 1 and not level.leaf
        return bits | (raw & _PS if forbidden else 0)

    def is_leaf(self, level: Level, raw: int) -> bool:
        return level.number == 1 or (level.leaf and bool(raw & _PS))

    def address(self, level: Level, raw: int) -> int:
        """The address in a present entry without reserved bits: the next table's, or the page's."""
        layout = self.layout(level, raw)
        pa = raw & layout.address_mask & ~self.c_mask
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
        return {
            "mode": self.mode.name,
            "va_bits": self.mode.va_bits,
            "maxphyaddr": self.maxphyaddr,
            "root": f"{self.root:#x}",
            "switches": " ".join(name for _, names in _SWITCHES for name in names if name in self.on),
            "assumed": " ".join(self.assumed) or "nothing",
        }


def _mode(value: Mapping[str, int], gbpages: bool) -> Mode:
    cr0, cr4, efer = value["CR0"], value["CR4"], value["EFER"]
    if not cr0 & CR0.mask("PG") or not cr0 & CR0.mask("PE"):
        raise RegisterError("paging is off (CR0.PG or CR0.PE is 0): there is nothing to walk", field="CR0", value=cr0)
    pae = bool(cr4 & CR4.mask("PAE"))
    if not efer & EFER.mask("LMA"):
        return PAE if pae else legacy(bool(cr4 & CR4.mask("PSE")))
    if not pae:
        raise RegisterError("long mode needs CR4.PAE=1", field="CR4", value=cr4)
    return long_mode(5 if cr4 & CR4.mask("LA57") else 4, gbpages)

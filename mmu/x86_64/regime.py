"""x86 translation regimes: control registers in, a validated walk plan out (Intel SDM volume 3A chapter 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...arch.errors import RegisterError
from ...arch.layout import RES0, Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.registers import CR0, CR3, CR4, EFER
from ..memory import Memory
from ..regime import Entry, EntryType, Tree
from ..walk import Access, Level, Walk

_NAMES = {5: ("PML5E", "PGD"), 4: ("PML4E", "P4D"), 3: ("PDPTE", "PUD"), 2: ("PDE", "PMD"), 1: ("PTE", "PTE")}
_TABLES = {5: entries.PML5E, 4: entries.PML4E, 3: entries.PDPTE, 2: entries.PDE, 1: entries.PTE}
_LEAVES = {3: entries.PDPTE_1G, 2: entries.PDE_2M, 1: entries.PTE}
_PS = entries.PDE["PS"].mask
_P = entries.PTE["P"].mask
_XD = entries.PTE["XD"].mask
_DEFAULTS = {
    "CR0": CR0.build(PE=1, WP=1, PG=1),
    "CR4": CR4.build(PAE=1),
    "EFER": EFER.build(LME=1, LMA=1, NXE=1),
    "RFLAGS": 2,
    "PKRU": 0,
    "PKRS": 0,
    "PAT": 0x0007_0406_0007_0406,  # the value at reset (Intel SDM volume 3A 13.12.4)
}
_FEATURES: dict[str, int] = {"maxphyaddr": 52, "gbpages": 1}


def _levels(depth: int, gbpages: int) -> tuple[Level, ...]:
    names = dict(_NAMES)
    if depth == 4:
        names[4] = ("PML4E", "PGD")  # Linux folds the P4D away
    leaf = {1, 2, 3} if gbpages else {1, 2}
    return tuple(Level(n, *names[n], 12 + 9 * (n - 1), 9, n in leaf) for n in range(depth, 0, -1))


@dataclass(frozen=True)
class X86Regime:
    """Long-mode paging with 4 or 5 levels.

    >>> regime = X86Regime.from_registers({"CR3": 0x1000}, {"maxphyaddr": 46})
    >>> regime.depth, [level.name for level in regime.levels], regime.trees[1].va_start == 0xffff_8000_0000_0000
    (4, ['PML4E', 'PDPTE', 'PDE', 'PTE'], True)
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    rflags: int
    pat: int
    maxphyaddr: int
    gbpages: int
    assumed: tuple[str, ...] = ()
    arch: str = "x86_64"
    levels: tuple[Level, ...] = field(default=(), compare=False)

    @classmethod
    def from_registers(cls, registers: Mapping[str, int], features: Mapping[str, int | str]) -> X86Regime:
        """Build and check; registers that are not given get the defaults of `describe()['assumed']`.

        RegisterError where CR3 is missing, paging is off, the processor is not in long mode, or bits are reserved.
        """
        if "CR3" not in registers:
            raise RegisterError("no root: the registers lack CR3", field="CR3")
        assumed = tuple(name for name in ("CR0", "CR4", "EFER") if name not in registers)
        value = {name: registers.get(name, default) for name, default in _DEFAULTS.items()}
        feature = {name: int(features.get(name, default)) for name, default in _FEATURES.items()}
        if not 32 <= feature["maxphyaddr"] <= 52:
            raise RegisterError("MAXPHYADDR lies between 32 and 52", field="maxphyaddr", value=feature["maxphyaddr"])
        cr3 = registers["CR3"]
        _check(value, cr3, feature["maxphyaddr"])
        depth = 5 if CR4["LA57"].get(value["CR4"]) else 4
        return cls(
            value["CR0"], cr3, value["CR4"], value["EFER"], value["RFLAGS"], value["PAT"],
            feature["maxphyaddr"], feature["gbpages"], assumed, levels=_levels(depth, feature["gbpages"]),
        )  # fmt: skip

    @property
    def depth(self) -> int:
        return len(self.levels)

    @property
    def va_bits(self) -> int:
        return self.levels[0].shift + self.levels[0].index_bits

    @property
    def root(self) -> int:
        return self.cr3 & CR3.address_mask

    def flag(self, layout: Layout, name: str) -> bool:
        """A register bit by its name: flag(CR4, "SMEP")."""
        value = {"CR0": self.cr0, "CR4": self.cr4, "EFER": self.efer, "RFLAGS": self.rflags}[layout.name]
        return bool(value & layout[name].mask)

    @property
    def trees(self) -> tuple[Tree, ...]:
        half = 1 << self.va_bits - 1
        low = Tree("CR3", self.root, self.levels, 0, half)
        return low, Tree("CR3", self.root, self.levels, (1 << 64) - half, 1 << 64)

    def reserved_mask(self, layout: Layout) -> int:
        """The bits that make a present entry of this kind fault: declared RES0, address bits from MAXPHYADDR, XD."""
        beyond = layout.address_mask >> self.maxphyaddr << self.maxphyaddr
        return layout.role_mask(RES0) | beyond | (0 if self.flag(EFER, "NXE") else _XD)

    def layout(self, level: Level, raw: int) -> Layout:
        """How an entry found at `level` is to be read: as a leaf where PS is set (or always at the last level)."""
        if level.number == 1 or (raw & _PS and level.number in _LEAVES):
            return _LEAVES[level.number]
        return _TABLES[level.number]

    def reserved(self, level: Level, raw: int) -> int:
        """The set reserved bits of a present entry (Intel SDM volume 3A 5.5.4 and 5.7)."""
        bits = raw & self.reserved_mask(self.layout(level, raw))
        return bits | (raw & _PS if level.number > 1 and not level.leaf else 0)

    def classify(self, level: Level, raw: int) -> Entry:
        """What the hardware makes of the entry `raw` found at `level`."""
        layout = self.layout(level, raw)
        if not raw & _P:
            return Entry(EntryType.NONE, 0, layout)
        if self.reserved(level, raw):
            return Entry(EntryType.RESERVED, 0, layout)
        leaf = level.number == 1 or bool(raw & _PS)
        return Entry(EntryType.LEAF if leaf else EntryType.TABLE, raw & layout.address_mask, layout)

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Walk `va`; see `mmu.x86_64.walk`."""
        from .walk import walk

        return walk(self, memory, va, access or Access(), update=update)

    def describe(self) -> Mapping[str, object]:
        """Mode, widths and the switches that are on."""
        on = [n for n in ("WP",) if self.flag(CR0, n)] + [n for n in ("SMEP", "SMAP", "PGE") if self.flag(CR4, n)]
        return {
            "mode": f"{self.depth}-level paging",
            "va_bits": self.va_bits,
            "maxphyaddr": self.maxphyaddr,
            "root": f"{self.root:#x}",
            "switches": " ".join(on + (["NXE"] if self.flag(EFER, "NXE") else [])),
            "assumed": " ".join(self.assumed) or "nothing",
        }


def _check(value: Mapping[str, int], cr3: int, maxphyaddr: int) -> None:
    if not value["CR0"] & CR0["PG"].mask:
        raise RegisterError("paging is off (CR0.PG=0): there is nothing to walk", field="CR0", value=value["CR0"])
    if not value["EFER"] & EFER["LMA"].mask or not value["CR4"] & CR4["PAE"].mask:
        raise RegisterError("not in long mode (needs EFER.LMA=1 and CR4.PAE=1)", field="EFER", value=value["EFER"])
    if cr3 & CR3.address_mask >> maxphyaddr << maxphyaddr:
        raise RegisterError(f"the root lies beyond MAXPHYADDR={maxphyaddr}", field="CR3", value=cr3)

"""A machine: memory, registers and named address spaces, as a loader found or a person described them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..arch.errors import InputError
from .memory import PhysicalMemory
from .regime import Regime

ROOT_REGISTER = {"x86_64": "CR3", "arm64": "TTBR0_EL1"}


@dataclass(slots=True)
class Space:
    """One address space: `registers` override the machine's while it runs (its CR3, its TTBR0_EL1 ...)."""

    name: str
    registers: dict[str, int]
    pid: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Folio:
    """What a source knew of a folio: `1 << order` pages from page frame `pfn`; `kind` in the words of rmap's kinds."""

    pfn: int
    order: int = 0
    kind: str = "anon"
    name: str = ""


@dataclass(slots=True)
class Machine:
    """What a loader returns.

    `registers` maps the manual's register names to values, `features` the processor's properties that the walk
    depends on (x86_64: `maxphyaddr`, `gbpages` ...; arm64: `pamax`, `FEAT_LPA2` ...). `kernel` is the Linux release
    string where the source tells it: it selects how software bits and non-present entries are read. `folios` lists
    the folios that the source described, by frame. `notes` says what the loader found missing or decided.
    """

    arch: str
    memory: PhysicalMemory
    registers: dict[str, int]
    features: dict[str, int | str] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    kernel: str | None = None
    source: str = ""
    format: str = ""
    folios: list[Folio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def space(self, name: str) -> Space:
        """The address space of this name; InputError lists the names there are."""
        try:
            return self.spaces[name]
        except KeyError:
            known = ", ".join(self.spaces) or "none"
            text = f"no address space of this name (there are: {known})"
            raise InputError(text, field="process", value=name) from None

    def regime(self, space: str | None = None, root: int | None = None) -> Regime:
        """The translation regime of a space, or of the machine's own registers, or with another `root` put in."""
        registers = dict(self.registers)
        if space is not None:
            registers |= self.space(space).registers
        if root is not None:
            registers[ROOT_REGISTER[self.arch]] = root
        return regime_from_registers(self.arch, registers, self.features)

    def with_space(self, space: Space) -> Machine:
        """A copy of the machine (memory shared) that knows one space more."""
        return replace(self, spaces={**self.spaces, space.name: space})


def regime_from_registers(arch: str, registers: Mapping[str, int], features: Mapping[str, int | str]) -> Regime:
    """The regime of `arch` ('x86_64' or 'arm64'); RegisterError where the values cannot translate."""
    if arch == "x86_64":
        from .x86_64.regime import X86Regime

        return X86Regime.from_registers(registers, features)
    if arch == "arm64":
        from .arm64.regime import Arm64Regime

        return Arm64Regime.from_registers(registers, features)
    raise InputError("unknown architecture", field="arch", value=arch)

"""Entries in the hardware's terms: tables and leaves made from rights, split into smaller leaves and joined again.

Linux's personality (arch.linux) makes entries as the kernel does; this is for tables described by hand, in every paging
mode of x86 and every granule of arm64 with 64-bit descriptors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..arch.arm64.descriptors import LAYOUTS as DESCRIPTORS
from ..arch.arm64.descriptors import layout_for, output_address, with_address
from ..arch.errors import InputError
from ..arch.layout import Layout
from .arm64.entries import CONTIGUOUS, contiguous_log2
from .arm64.params import GRANULE_NAMES, S1Params
from .arm64.regime import Arm64Regime
from .regime import Regime
from .walk import Level
from .x86_64.regime import X86Regime


@dataclass(frozen=True, slots=True)
class PageAttributes:
    """What a leaf says of its page besides the address. Reading is always allowed.

    `user` admits user mode; on arm64 a page is executable for one of both modes, user pages for user mode alone.
    `memory_type` is the index into PAT or MAIR_EL1, `pkey` the protection key (x86), `shareability` the SH field
    (arm64; 3 is inner shareable). `software` is OR-ed in as it is.
    """

    write: bool = True
    execute: bool = False
    user: bool = True
    global_: bool = False
    accessed: bool = True
    dirty: bool = True
    memory_type: int = 0
    pkey: int = 0
    shareability: int = 3
    software: int = 0


class HardwareEntries(ABC):
    """Makes and remakes the entries of one regime; `level` is one of the regime's levels."""

    @abstractmethod
    def table(self, level: Level, pa: int) -> int:
        """The entry that points at the table at `pa` and takes no right away."""

    @abstractmethod
    def leaf(self, level: Level, pa: int, attributes: PageAttributes) -> int:
        """The entry that maps the page at `pa`; InputError for what this paging mode cannot say."""

    @abstractmethod
    def protect(self, level: Level, raw: int, attributes: PageAttributes) -> int:
        """A leaf with the write, execute and user rights of `attributes`, all else kept."""

    @abstractmethod
    def address(self, level: Level, raw: int) -> int:
        """The address in a leaf."""

    @abstractmethod
    def resize(self, level: Level, raw: int, to: Level, pa: int) -> int:
        """A leaf at another level with the same attributes, for the page at `pa`; a contiguous bit is dropped."""

    def needs_break(self, level: Level, old: int, new: int) -> str:
        """Why a live entry has to be invalid for a while before `new` may stand there; nothing where it need not."""
        return ""

    def contiguous_entries(self, level: Level) -> int:
        """How many neighbouring leaves a contiguous bit can join at this level; 1 where there is no such bit."""
        return 1

    def contiguous(self, raw: int) -> int:
        """A leaf with its contiguous bit set."""
        raise InputError("this architecture has no contiguous bit", field="contiguous")


def _put(layout: Layout, raw: int, name: str, value: int) -> int:
    try:
        return layout[name].put(raw, value)
    except ValueError as error:
        raise InputError(str(error), field=name, value=value) from None


class X86Entries(HardwareEntries):
    """x86: 32-bit, PAE, 4- and 5-level paging."""

    def __init__(self, regime: X86Regime) -> None:
        self.regime = regime

    def _address(self, layout: Layout, raw: int, pa: int) -> int:
        top = layout.get("ADDR_39_32")
        low = pa & layout.address_mask
        high = pa >> 32 if top is not None else 0
        if low | (high << 32) != pa or pa >> self.regime.maxphyaddr or (top is not None and high >> top.width):
            raise InputError(f"a {layout.name} cannot hold this address", field="pa", value=pa)
        return raw | low | (top.put(0, high) if top is not None else 0) | self.regime.c_mask

    def table(self, level: Level, pa: int) -> int:
        layout = self.regime.mode.tables[level.number]
        flags = {name: 1 for name in ("P", "RW", "US", "A") if name in layout}
        return self._address(layout, layout.build(**flags), pa)

    def _layout(self, level: Level) -> Layout:
        if not level.leaf:
            raise InputError(f"a {level.name} cannot map memory here", field="page_size", value=1 << level.shift)
        return self.regime.mode.leaves[level.number]

    def leaf(self, level: Level, pa: int, attributes: PageAttributes) -> int:
        layout = self._layout(level)
        raw = layout.build(P=1, A=attributes.accessed, D=attributes.dirty and attributes.write, G=attributes.global_)
        raw = self._rights(layout, raw | (layout.mask("PS") if "PS" in layout else 0), attributes)
        if attributes.memory_type >> 3:
            raise InputError("the memory type is an index into 8 PAT entries", value=attributes.memory_type)
        for i, name in enumerate(("PWT", "PCD", "PAT")):
            raw = layout[name].put(raw, attributes.memory_type >> i & 1)
        if attributes.pkey:
            if "PK" not in layout:
                raise InputError("this paging mode has no protection keys", field="pkey", value=attributes.pkey)
            raw = _put(layout, raw, "PK", attributes.pkey)
        return self._address(layout, raw, pa) | attributes.software

    def _rights(self, layout: Layout, raw: int, attributes: PageAttributes) -> int:
        raw = layout["RW"].put(layout["US"].put(raw, attributes.user), attributes.write)
        if "XD" in layout and "NXE" in self.regime.on:
            return layout["XD"].put(raw, not attributes.execute)
        if not attributes.execute:
            raise InputError("this paging mode cannot forbid execution (no EFER.NXE)", field="execute")
        return raw

    def protect(self, level: Level, raw: int, attributes: PageAttributes) -> int:
        return self._rights(self._layout(level), raw, attributes)

    def address(self, level: Level, raw: int) -> int:
        return self.regime.address(level, raw)

    def resize(self, level: Level, raw: int, to: Level, pa: int) -> int:
        old, new = self._layout(level), self._layout(to)
        address = old.address_mask | (old.mask("ADDR_39_32") if "ADDR_39_32" in old else 0) | self.regime.c_mask
        pat = old["PAT"].get(raw)
        kept = raw & ~(address | old.mask("PAT") | (old.mask("PS") if "PS" in old else 0))
        kept = new["PAT"].put(kept, pat) | (new.mask("PS") if "PS" in new else 0)
        return self._address(new, kept, pa)


_PAGE = DESCRIPTORS["PAGE_4K"]
_USER, _READ_ONLY = 0b01 << _PAGE["AP"].shift, 0b10 << _PAGE["AP"].shift
_VALID, _PAGE_TYPE, _NT = _PAGE.mask("valid"), _PAGE.mask("page"), DESCRIPTORS["BLOCK_4K"].mask("nT")
_UXN, _PXN = _PAGE.mask("UXN"), _PAGE.mask("PXN")


class Arm64Entries(HardwareEntries):
    """arm64 stage 1, 64-bit descriptors of all granules."""

    def __init__(self, regime: Arm64Regime) -> None:
        self.regime = regime

    def _layout(self, level: Level, *, table: bool) -> tuple[S1Params, Layout]:
        params = self.regime.half(level)
        if params.d128:
            raise InputError("128-bit descriptors are not built from a description", field="TCR2_EL1.D128")
        if not table and not level.leaf:
            raise InputError(f"a descriptor at {level.name} cannot map memory here", value=1 << level.shift)
        wide = "LPA2" if params.ds else "LPA" if params.granule == 16 and (params.lpa or level.number == 1) else ""
        return params, layout_for(GRANULE_NAMES[params.granule], wide, level.number, table=table)

    def _with_address(self, params: S1Params, layout: Layout, raw: int, pa: int) -> int:
        try:
            if pa >> params.oa_size:
                raise ValueError
            return with_address(layout, raw, pa)
        except ValueError:
            raise InputError(f"a {layout.name} descriptor cannot hold this address", field="pa", value=pa) from None

    def table(self, level: Level, pa: int) -> int:
        params, layout = self._layout(level, table=True)
        return self._with_address(params, layout, layout.build(valid=1, table=1, AF=params.haft), pa)

    def leaf(self, level: Level, pa: int, attributes: PageAttributes) -> int:
        params, layout = self._layout(level, table=False)
        if attributes.pkey:
            raise InputError("overlays (POIndex) are not built from a description", field="pkey", value=attributes.pkey)
        raw = layout.build(valid=1, AF=attributes.accessed, nG=not attributes.global_)
        raw |= _PAGE_TYPE if level.number == 3 else 0
        raw = _put(layout, raw, "AttrIndx", attributes.memory_type)
        raw = _put(layout, raw, "SH", attributes.shareability) if "SH" in layout else raw
        return self._with_address(params, layout, self._rights(params, raw, attributes), pa) | attributes.software

    def _rights(self, params: S1Params, raw: int, attributes: PageAttributes) -> int:
        if params.pie:
            raise InputError(
                "with permission indirection rights come from PIR, not from the entry", field="TCR2_EL1.PIE"
            )
        raw &= ~(_USER | _READ_ONLY | _UXN | _PXN)
        raw |= (_USER if attributes.user else 0) | (0 if attributes.write else _READ_ONLY)
        user_execute, kernel_execute = (
            attributes.execute and attributes.user,
            attributes.execute and not attributes.user,
        )
        if not self.regime.name.unprivileged:  # one privilege level: one execute-never bit
            return raw | (0 if attributes.execute else _UXN)
        return raw | (0 if user_execute else _UXN) | (0 if kernel_execute else _PXN)

    def protect(self, level: Level, raw: int, attributes: PageAttributes) -> int:
        return self._rights(self._layout(level, table=False)[0], raw, attributes)

    def address(self, level: Level, raw: int) -> int:
        return output_address(self._layout(level, table=False)[1], raw)

    def resize(self, level: Level, raw: int, to: Level, pa: int) -> int:
        layout = self._layout(level, table=False)[1]
        params, new = self._layout(to, table=False)
        nt = layout.mask("nT") if "nT" in layout else 0
        kept = raw & ~(layout.address_mask | CONTIGUOUS | nt | _PAGE_TYPE)
        return self._with_address(params, new, kept | (_PAGE_TYPE if to.number == 3 else 0), pa)

    def needs_break(self, level: Level, old: int, new: int) -> str:
        verdict = self.regime.break_before_make(level, old, new)
        return "" if verdict.allowed else verdict.reason

    def contiguous_entries(self, level: Level) -> int:
        return 1 << contiguous_log2(self.regime.half(level), CONTIGUOUS, level.number)

    def contiguous(self, raw: int) -> int:
        return raw | CONTIGUOUS


def entries_for(regime: Regime) -> HardwareEntries:
    """The entry maker of a regime.

    >>> from .machine import regime_from_registers
    >>> regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    >>> hex(entries_for(regime).leaf(regime.trees[0].levels[-1], 0x5000, PageAttributes()))
    '0x8000000000005067'
    """
    if isinstance(regime, X86Regime):
        return X86Entries(regime)
    if isinstance(regime, Arm64Regime):
        return Arm64Entries(regime)
    raise InputError("no page tables are built for this architecture", field="arch", value=regime.arch)

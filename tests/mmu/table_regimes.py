"""Regimes in which tables are built and edited: every paging mode of x86 and every granule and width of arm64."""

from __future__ import annotations

from dataclasses import dataclass

from ptwalk.arch.arm64.registers import LAYOUTS as ARM64
from ptwalk.arch.x86_64.registers import CR4, EFER
from ptwalk.mmu.editor import TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.regime import Regime

TABLES, TABLES_END = 0x10_0000, 0x100_0000
ROOT, ROOT1 = 0x8_0000, 0x9_0000
_TCR = ARM64["TCR_EL1"]
_GRANULES = {12: (0, 2), 14: (2, 1), 16: (1, 3)}  # TG0, TG1 by page shift


@dataclass(frozen=True)
class Case:
    """A named regime with the size of its smallest page."""

    name: str
    regime: Regime
    page_size: int = 4096

    def memory(self) -> PhysicalMemory:
        memory = PhysicalMemory()
        memory.add_ram(0, TABLES_END)
        return memory

    def frames(self) -> FrameAllocator:
        return FrameAllocator(TABLES, TABLES_END, self.page_size)

    def editor(self) -> TableEditor:
        return TableEditor(self.memory(), self.regime, self.frames(), space=self.name)


def _x86(name: str, features: dict | None = None, **registers: int) -> Case:
    return Case(name, regime_from_registers("x86_64", {"CR3": ROOT, **registers}, features or {}))


def _arm64(name: str, shift: int, bits: int, **fields: int) -> Case:
    tg0, tg1 = _GRANULES[shift]
    fields = {"IPS": 5, **fields}
    tcr = _TCR.build(T0SZ=64 - bits, T1SZ=64 - bits, TG0=tg0, TG1=tg1, **fields)
    features = {"FEAT_LPA": 1, "FEAT_LVA": 1, "FEAT_LPA2": 1, "FEAT_TTST": 1, "FEAT_HAFDBS": 1}
    features = {"pamax": 52, **features} if fields["IPS"] == 6 else {}
    registers = {"TCR_EL1": tcr, "TTBR0_EL1": ROOT, "TTBR1_EL1": ROOT1, "SCTLR_EL1": ARM64["SCTLR_EL1"].build(M=1)}
    return Case(name, regime_from_registers("arm64", registers, features), 1 << shift)


LMA = EFER.build(LME=1, LMA=1, NXE=1)
CASES = [
    _x86("4-level"),
    _x86("5-level", CR4=CR4.build(PAE=1, LA57=1)),
    _x86("4-level-no-1G", {"gbpages": 0}),
    _x86("PAE", CR4=CR4.build(PAE=1), EFER=EFER.build(NXE=1)),
    _x86("32-bit-PSE", {"maxphyaddr": 36}, CR4=CR4.build(PSE=1), EFER=0),
    _x86("32-bit", CR4=0, EFER=0),
    _arm64("4K-48", 12, 48),
    _arm64("4K-39", 12, 39),
    _arm64("4K-LPA2", 12, 52, DS=1, IPS=6),
    _arm64("16K-47", 14, 47),
    _arm64("16K-LPA2", 14, 52, DS=1, IPS=6),
    _arm64("64K-42", 16, 42),
    _arm64("64K-LPA", 16, 52, IPS=6),
]
BY_NAME = {case.name: case for case in CASES}

"""Random and hostile page tables through both walkers: `python -m ptwalk.mmu.arm64.campaign --cases N --seed S`.

A round builds one processor state and one memory full of entries that point at each other, at themselves, at nothing
and out of memory, and asks the reference walker and the kernel about the same addresses, on copies of that memory.
Outcomes and the memory afterwards have to be equal. A difference is printed with the seed that reproduces it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arch.arm64.registers import LAYOUTS
from ...arch.errors import RegisterError
from ..kernels.batch import pack_info
from ..kernels.views import memory_view
from ..memory import PhysicalMemory
from ..walk import Outcome, outcome
from . import entries
from .access import Arm64Access, Operation
from .features import Choices
from .kernels import FAULTS, translate
from .regime import Arm64Regime

MODES = ("4k", "4k-lpa2", "16k", "16k-lpa2", "64k", "64k-lpa", "stage2")
BANK_BYTES = 4 << 20
ROUND = 2500
_TG0, _TG1 = {12: 0, 16: 1, 14: 2}, {12: 2, 16: 3, 14: 1}
_MAIR_BYTES = (0x00, 0x04, 0x44, 0xFF, 0xBB, 0x40)
_ALWAYS = ("FEAT_XNX", "FEAT_HPDS", "FEAT_PAN", "FEAT_HCX", "FEAT_XS")
_SOMETIMES = ("FEAT_HAFDBS", "FEAT_TTST", "FEAT_PAN3", "FEAT_E0PD", "FEAT_S2FWB", "FEAT_BBM", "FEAT_NV")


@dataclass
class Round:
    """One processor state, its memory image, and the addresses asked about."""

    regime: Arm64Regime
    base: int
    image: NDArray[np.uint64]
    vas: list[int]
    access: Arm64Access
    update: bool

    def memory(self) -> PhysicalMemory:
        """A fresh copy of the memory image."""
        ram = PhysicalMemory()
        ram.add_bytes(self.base, self.image.tobytes())
        return ram


@dataclass
class Result:
    """How many cases were compared, what they ended in, and every difference in words."""

    cases: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def make_round(mode: str, rng: random.Random) -> Round:
    """A random round of this mode."""
    while True:
        try:
            return _make_round(mode, rng)
        except RegisterError:
            continue  # a draw that no processor would start from


def _make_round(mode: str, rng: random.Random) -> Round:
    granule = {"4": 12, "1": 14, "6": 16}[mode[0]] if mode != "stage2" else rng.choice((12, 14, 16))
    wide = "lpa" in mode or (mode == "stage2" and rng.random() < 0.3)
    features = dict.fromkeys(_ALWAYS, 1) | {name: 1 for name in _SOMETIMES if rng.random() < 0.6}
    if wide:
        features |= dict.fromkeys(("FEAT_LPA", "FEAT_LVA", "FEAT_LPA2"), 1)
    pamax = 52 if wide else rng.choice((40, 44, 48))
    base = rng.choice((0x4000_0000, 1 << 36, 3 << 49 if wide else 0x80_0000_0000))
    registers = _registers(rng, granule, wide, base, features)
    if mode == "stage2":
        registers |= _stage2_registers(rng, wide, base, pamax)
    choices = Choices(
        nt_block_faults=rng.random() < 0.5,
        contig_misprog_faults=rng.random() < 0.5,
        bbm_level=rng.choice((0, 1, 2)),
        txsz_above_max_faults=rng.random() < 0.5,
        txsz_below_min_faults=rng.random() < 0.5,
    )
    regime = Arm64Regime.from_registers(registers, features | {"pamax": pamax}, choices)
    big = bool(LAYOUTS["SCTLR_EL1"]["EE"].get(registers["SCTLR_EL1"]))
    image = _image(np.random.default_rng(rng.getrandbits(64)), granule, wide, base)
    vas = [_address(rng, regime) for _ in range(ROUND)]
    return Round(regime, base, image.byteswap() if big else image, vas, _access(rng), rng.random() < 0.5)


def _root(rng: random.Random, base: int, wide: bool) -> int:
    pa = base + rng.randrange(BANK_BYTES >> 16) * 0x10000
    if rng.random() < 0.02:
        pa = rng.getrandbits(48)
    return pa & (1 << 48) - 1 | (pa >> 48 & 15) << 2 if wide else pa


def _registers(rng: random.Random, granule: int, wide: bool, base: int, features: dict[str, int]) -> dict[str, int]:
    smallest = 12 if wide else 16
    largest = (47 if granule == 16 else 48) if "FEAT_TTST" in features else 39
    sizes = [rng.choice((smallest, rng.randint(smallest, largest), 25)) for _ in range(2)]
    rare = {name: int(rng.random() < 0.05) for name in ("EPD0", "EPD1", "E0PD0", "E0PD1")}
    common = {name: int(rng.random() < 0.5) for name in ("HA", "HD", "HPD0", "HPD1", "TBI0", "TBI1", "TBID0", "TBID1")}
    tcr = LAYOUTS["TCR_EL1"].build(
        T0SZ=sizes[0], T1SZ=sizes[1], TG0=_TG0[granule], TG1=_TG1[granule],
        IPS=rng.choice((5, 6, 6, 2) if wide else (5, 4)), DS=int(wide and granule != 16), SH0=3, SH1=2,
        **rare, **common,
    )  # fmt: skip
    flags = {name: int(rng.random() < 0.3) for name in ("WXN", "EPAN")} | {"EE": int(rng.random() < 0.1)}
    sctlr = LAYOUTS["SCTLR_EL1"].build(M=1, C=int(rng.random() < 0.9), I=int(rng.random() < 0.9), **flags)
    return {
        "TCR_EL1": tcr,
        "SCTLR_EL1": sctlr,
        "TTBR0_EL1": _root(rng, base, wide),
        "TTBR1_EL1": _root(rng, base, wide),
        "MAIR_EL1": int.from_bytes(rng.choices(_MAIR_BYTES, (1, 1, 2, 6, 1, 1), k=8), "little"),
    }


def _stage2_registers(rng: random.Random, wide: bool, base: int, pamax: int) -> dict[str, int]:
    """Stage 2 with a start level that fits the input size, mostly."""
    granule = rng.choice((12, 14, 16))
    flags = {name: int(rng.random() < 0.5) for name in ("HA", "HD")}
    size = min(pamax, 52 if wide else 48)
    top = 3 if granule == 14 and size > 51 else 2 if size >= 44 else 1
    if rng.random() < 0.05:
        size, top = rng.randint(25, 48), rng.randrange(4)
    vtcr = LAYOUTS["VTCR_EL2"].build(
        T0SZ=64 - size, SL0=top, TG0=_TG0[granule], PS=6 if wide else 5, DS=int(wide and granule != 16), **flags
    )
    extra = {name: int(rng.random() < 0.2) for name in ("PTW", "CD", "ID", "FWB", "NV1")}
    return {
        "VTCR_EL2": vtcr,
        "VTTBR_EL2": _root(rng, base, wide),
        "HCR_EL2": LAYOUTS["HCR_EL2"].build(VM=1, RW=1, **extra),
    }


def _image(rng: Any, granule: int, wide: bool, base: int) -> NDArray[np.uint64]:
    """Words of which most are entries that lead somewhere in the bank, the rest of every hostile kind."""
    n = BANK_BYTES // 8
    frames = rng.integers(0, BANK_BYTES >> granule, n, dtype=np.uint64) << np.uint64(granule)
    pa = frames + np.uint64(base)
    words = pa & np.uint64((1 << 48) - 1)
    if wide and granule == 16:
        words |= (pa >> np.uint64(48)) << np.uint64(12)
    elif wide:
        words |= (pa >> np.uint64(48) & np.uint64(3)) << np.uint64(48) | (pa >> np.uint64(50)) << np.uint64(8)
    words |= np.where(rng.random(n) < 0.97, 1, 0).astype(np.uint64)
    words |= np.where(rng.random(n) < 0.9, 2, 0).astype(np.uint64)
    words |= np.where(rng.random(n) < 0.9, entries.AF, 0).astype(np.uint64)
    attributes = 0xFC | entries.NG | entries.DBM | entries.PXN | entries.UXN
    words |= rng.integers(0, 1 << 63, n, dtype=np.uint64) & np.uint64(attributes)
    words |= np.where(rng.random(n) < 0.05, entries.CONTIGUOUS, 0).astype(np.uint64)
    words |= np.where(rng.random(n) < 0.03, rng.integers(0, 1 << 63, n), 0).astype(np.uint64)
    wild = rng.random(n)
    words = np.where(wild < 0.01, rng.integers(0, 1 << 63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1), words)
    words = np.where((wild >= 0.01) & (wild < 0.015), np.uint64((1 << 64) - 1), words)
    own = np.arange(n, dtype=np.uint64) * np.uint64(8) + np.uint64(base)
    itself = own >> np.uint64(granule) << np.uint64(granule) & np.uint64((1 << 48) - 1) | np.uint64(3 | entries.AF)
    result: NDArray[np.uint64] = np.where((wild >= 0.015) & (wild < 0.025), itself, words)
    return result


def _address(rng: random.Random, regime: Arm64Regime) -> int:
    if not regime.trees or rng.random() < 0.03:
        return rng.getrandbits(64)
    tree = rng.choice(regime.trees)
    va = rng.randrange(tree.va_start, tree.va_end)
    if rng.random() < 0.05:
        va ^= 1 << rng.randrange(64)
    return va ^ (rng.getrandbits(8) << 56 if rng.random() < 0.05 else 0)


def _access(rng: random.Random) -> Arm64Access:
    operation = rng.choice([op for op in Operation if op is not Operation.DC_INVALIDATE])
    el = rng.choice((0, 1))
    return Arm64Access(
        operation.traits.kind,
        el == 0,
        el,
        operation,
        pan=rng.random() < 0.4,
        at_pan=rng.random() < 0.5,
        aligned=rng.random() < 0.8,
    )


def compare(work: Round, result: Result, about: str) -> None:
    """Run one round through both walkers and add what came out to `result`."""
    first, second = work.memory(), work.memory()
    pa, info = np.empty(len(work.vas), np.uint64), np.empty(len(work.vas), np.uint64)
    vas = np.array(work.vas, np.uint64)
    translate(memory_view(second), work.regime, vas, work.access, work.update, pa, info)
    for k, va in enumerate(work.vas):
        expected: Outcome = outcome(work.regime.walk(first, va, work.access, update=work.update))
        name = getattr(expected, "name", "translated")
        result.outcomes[name] = result.outcomes.get(name, 0) + 1
        want = (getattr(expected, "pa", 0), pack_info(expected, FAULTS))
        got = (int(pa[k]), int(info[k]))
        if got != want:
            told = f"pa {got[0]:#x} info {got[1]:#x}, the reference says pa {want[0]:#x} info {want[1]:#x}"
            result.differences.append(f"{about}: va {va:#018x}: {told} ({expected})")
    result.cases += len(work.vas)
    if first.read(work.base, BANK_BYTES) != second.read(work.base, BANK_BYTES):
        result.differences.append(f"{about}: memory differs afterwards")


def run(mode: str, cases: int, seed: int) -> Result:
    """At least `cases` cases of one mode; each round's seed is `seed` plus its number."""
    result = Result()
    number = 0
    while result.cases < cases:
        round_seed = f"{mode}/{seed + number}"
        compare(make_round(mode, random.Random(round_seed)), result, f"round {round_seed}")
        number += 1
    return result


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 where a difference was found."""
    parser = argparse.ArgumentParser(description="Random tables through the reference walker and the kernel.")
    parser.add_argument("--cases", type=int, default=100_000, help="cases of each mode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, action="append", help="default: all")
    asked = parser.parse_args(arguments)
    failed = False
    for mode in asked.mode or MODES:
        began = time.monotonic()
        result = run(mode, asked.cases, asked.seed)
        spent = time.monotonic() - began
        print(f"{mode}: {result.cases} cases, {len(result.differences)} differences, {spent:.1f} s, {result.outcomes}")
        for line in result.differences[:10]:
            print(f"  {line}")
        failed |= bool(result.differences)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Unicorn 2.1.4 executes AT instructions on random tables and registers; PAR_EL1 has to come out the same.

Unicorn's known deviations from the architecture are the profile `unicorn-2.1.4`; nothing else is masked.
"""

import random

import numpy as np
import pytest
from unicorn_arm64 import FORMS, RAM_BASE, RAM_BYTES, UnicornOracle

from ptwalk.arch.arm64.faults import PAR_EL1, PAR_EL1_FAULT
from ptwalk.arch.arm64.registers import LAYOUTS
from ptwalk.mmu.arm64.features import PROFILES, UNICORN_MAX
from ptwalk.mmu.arm64.syndrome import expected_par
from ptwalk.mmu.arm64.system import SystemState
from ptwalk.mmu.memory import PhysicalMemory

CASES, SEED = 24_000, 20_261
HALF = RAM_BYTES // 2
MAIR = (0x00, 0x04, 0x0C, 0x44, 0xFF, 0xBB, 0x4F, 0xF4)
TG0, TG1 = {12: 0, 16: 1, 14: 2}, {12: 2, 16: 3, 14: 1}


def _image(rng: np.random.Generator) -> np.ndarray:
    """Stage 1 tables in the lower half of RAM, stage 2 tables in the upper half; no table lies outside RAM."""
    n = HALF // 8
    halves = []
    for start in (RAM_BASE, RAM_BASE + HALF):
        frames = rng.integers(0, HALF >> 16, n, dtype=np.uint64) << np.uint64(16)
        kind = np.where(rng.random(n) < 0.93, 3, np.where(rng.random(n) < 0.8, 1, 0)).astype(np.uint64)
        words = frames + np.uint64(start) | kind
        words |= np.where(rng.random(n) < 0.9, 1 << 10, 0).astype(np.uint64)
        bits = 0xFC | 1 << 11 | 0b111_1111 << 50 | (1 << 59 | 1 << 60 | 3 << 61)
        common = rng.integers(0, 1 << 63, n, dtype=np.uint64) & np.uint64(bits)
        words |= common & np.where(rng.random(n) < 0.7, np.uint64((1 << 59) - 1), np.uint64((1 << 64) - 1))
        words |= rng.choice(np.array([0, 2 << 8, 3 << 8], np.uint64), n)  # SH, not the reserved value
        if start == RAM_BASE:  # stage 1 leaves may lead anywhere
            wild = (kind == 1) & (rng.random(n) < 0.5)
            words |= np.where(wild, rng.integers(0, 1 << 48, n, dtype=np.uint64) & np.uint64(0xFFFF_FFFC_0000), 0)
        else:  # mostly readable, so that stage 1 gets to its tables; MemAttr[1:0]=0 is reserved for Normal
            words |= np.where(rng.random(n) < 0.9, 0xC0, 0).astype(np.uint64)
            words |= np.where((words >> 4 & 3 != 0) & (words >> 2 & 3 == 0), 1 << 2, 0).astype(np.uint64)
        halves.append(words)
    return np.concatenate(halves)


def _registers(rng: random.Random) -> dict[str, int]:
    granules = [rng.choice((12, 14, 16)) for _ in range(2)]
    flags = ("HPD0", "HPD1", "TBI0", "TBI1", "TBID0", "TBID1", "HA", "HD", "E0PD0", "E0PD1", "DS")
    tcr = LAYOUTS["TCR_EL1"].build(
        T0SZ=rng.choice((16, 25, rng.randrange(64))),
        T1SZ=rng.choice((16, 25, rng.randrange(64))),
        TG0=TG0[granules[0]],
        TG1=TG1[granules[1]],
        IPS=rng.randrange(7),
        EPD0=int(rng.random() < 0.05),
        EPD1=int(rng.random() < 0.05),
        **{flag: int(rng.random() < 0.4) for flag in flags},
    )
    sctlr = LAYOUTS["SCTLR_EL1"].build(M=1, C=1, I=1, WXN=int(rng.random() < 0.2))
    roots = [RAM_BASE + rng.randrange(HALF >> 16) * 0x10000 for _ in range(3)]
    registers = {
        "SCTLR_EL1": sctlr,
        "TCR_EL1": tcr,
        "TTBR0_EL1": roots[0],
        "TTBR1_EL1": roots[1],
        "MAIR_EL1": int.from_bytes(rng.choices(MAIR, k=8), "little"),
        "HCR_EL2": LAYOUTS["HCR_EL2"].build(RW=1),
    }
    if rng.random() < 0.5:
        registers |= _stage2(rng, roots[2] + HALF)
    return registers


def _stage2(rng: random.Random, root: int) -> dict[str, int]:
    granule = rng.choice((12, 14, 16))
    size, start = rng.choice(((40, 1), (44, 2), (44, 2), (rng.randint(25, 44), rng.randrange(3))))
    vtcr = LAYOUTS["VTCR_EL2"].build(T0SZ=64 - size, SL0=start, TG0=TG0[granule], PS=4, HA=int(rng.random() < 0.3))
    hcr = LAYOUTS["HCR_EL2"].build(VM=1, RW=1, PTW=int(rng.random() < 0.2))
    return {"VTCR_EL2": vtcr, "VTTBR_EL2": root, "HCR_EL2": hcr}


def _address(rng: random.Random, registers: dict[str, int]) -> int:
    tcr = LAYOUTS["TCR_EL1"].decode(registers["TCR_EL1"])
    upper = rng.random() < 0.5
    bits = 64 - min(39, max(16, tcr["T1SZ" if upper else "T0SZ"]))
    va = rng.getrandbits(bits) | ((1 << 64) - (1 << bits) if upper else 0)
    if rng.random() < 0.05:
        va ^= 1 << rng.randrange(64)
    return va ^ (rng.getrandbits(8) << 56 if rng.random() < 0.1 else 0)


def _kind(par: int) -> str:
    if not par & 1:
        return "translated"
    fields = PAR_EL1_FAULT.decode(par)
    return "S1PTW fault" if fields["PTW"] else "stage 2 fault" if fields["S"] else "stage 1 fault"


def _told(par: int) -> str:
    return (PAR_EL1_FAULT if par & 1 else PAR_EL1).flags(par)


@pytest.mark.parametrize("pan", [False, True])
def test_par_el1_is_what_unicorn_says(pan: bool) -> None:
    rng = random.Random(SEED + pan)
    image = _image(np.random.default_rng(SEED + pan))
    oracle, ram = UnicornOracle(), PhysicalMemory()
    oracle.load(image.tobytes())
    ram.add_bytes(RAM_BASE, image.tobytes())
    cases = []
    for _ in range(CASES // 2):
        registers = _registers(rng)
        cases.append((rng.choice(list(FORMS)), _address(rng, registers), registers))
    answers = oracle.run(cases, pan=pan)
    outcomes = {"translated": 0, "stage 1 fault": 0, "stage 2 fault": 0, "S1PTW fault": 0}
    unexplained = []
    for (form, va, registers), answer in zip(cases, answers, strict=True):
        system = SystemState({"SCR_EL3": 1, **registers}, UNICORN_MAX, PROFILES["unicorn-2.1.4"])
        expected = expected_par(system, ram, va, form, pan=pan)
        outcomes[_kind(answer)] += 1
        if answer != expected:
            told = {name: hex(value) for name, value in registers.items()}
            unexplained.append(f"AT {form} {va:#x} {told}: Unicorn {_told(answer)}, ptwalk {_told(expected)}")
    print(f"seed {SEED + pan}: {len(cases)} cases, {outcomes}")
    assert not unexplained, f"{len(unexplained)} of {len(cases)}: " + "\n".join(unexplained[:10])
    assert min(outcomes.values()) > 50, outcomes

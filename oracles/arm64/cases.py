"""Random tables, registers and accesses for the EL1&0 regime on QEMU 7.2.

What would make QEMU 7.2 abort (a block, or a stage 2 Permission fault, at level -1) is not drawn. Real accesses find
their data in scratch memory or where nothing answers, so that no store harms a table.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from ptwalk.arch.arm64.registers import LAYOUTS
from ptwalk.mmu.arm64.access import Arm64Access, Operation

from .emulator import STUB_PA, TABLES

REGION = 4 << 20  # one region of tables for each level, so that a walk comes down level by level
SCRATCH, SCRATCH_BYTES = 0x9000_0000, 64 << 20
UNBACKED = 0x20_0000_0000  # where no device and no RAM answers
FORMS = ("S1E1R", "S1E1W", "S1E0R", "S1E0W", "S1E1RP", "S1E1WP", "S12E1R", "S12E1W", "S12E0R", "S12E0W")
TG0, TG1 = {12: 0, 16: 1, 14: 2}, {12: 2, 16: 3, 14: 1}
MAIR = (0x00, 0x04, 0x0C, 0x44, 0xFF, 0xBB, 0x4F, 0xF4)
STUB_VA = 0xFFFF_FFFF_C000_0000
STUB_ROOT = TABLES + 10 * REGION
REAL = {
    0: Operation.READ,
    1: Operation.WRITE,
    2: Operation.READ,
    3: Operation.WRITE,
    5: Operation.EXCLUSIVE_READ,
    7: Operation.ATOMIC,
    8: Operation.DC_ZVA,
    15: Operation.ATOMIC,
}


def image(rng: np.random.Generator, real: bool) -> bytes:
    """Two sets (stage 1, stage 2) of five regions: the tables of levels -1 to 3."""
    parts = [_region(rng, stage, level, real) for stage in (0, 1) for level in range(-1, 4)]
    stub = np.zeros(0x10000 // 8, np.uint64)  # TTBR1: 4K granule, 39 bits, one page that EL0 and EL1 may execute
    stub[511] = STUB_ROOT + 0x1000 | 3
    stub[512 + (STUB_VA >> 21 & 511)] = STUB_ROOT + 0x2000 | 3
    stub[1024 + (STUB_VA >> 12 & 511)] = STUB_PA | 0x4C3 | 1 << 2  # AF, read-only at EL0
    return np.concatenate([*parts, stub]).tobytes()


def _region(rng: np.random.Generator, stage: int, level: int, real: bool) -> NDArray[np.uint64]:
    """The tables of one level: most entries lead to the next, some are leaves, few invalid."""
    n = REGION // 8
    frames = rng.integers(0, REGION >> 16, n, dtype=np.uint64) << np.uint64(16)
    kind = np.where(rng.random(n) < (0.97 if level < 1 else 0.85), 3, 1).astype(np.uint64)
    kind = np.where(rng.random(n) < 0.03, rng.integers(0, 2, n, dtype=np.uint64) * np.uint64(2), kind)
    if level < (1 if real else 0):  # QEMU 7.2 aborts on a level -1 block; real accesses would reach everything
        kind = np.where(kind == 1, np.uint64(0), kind)
    below = TABLES + (stage * 5 + min(level + 2, 4)) * REGION
    if stage == 1:  # stage 2 leaves lead to tables of stage 1, mostly of any level
        leaf = np.uint64(TABLES) + (rng.integers(0, 5 * REGION >> 16, n, dtype=np.uint64) << np.uint64(16))
    elif real:
        leaf = np.uint64(SCRATCH) + (rng.integers(0, SCRATCH_BYTES >> 16, n, dtype=np.uint64) << np.uint64(16))
    else:
        leaf = rng.integers(0, 1 << 48, n, dtype=np.uint64) & np.uint64(0xFFFF_FFFC_0000)
    block = np.uint64(UNBACKED) + (leaf & np.uint64(0xF_C000_0000)) if real else leaf
    words = np.where(kind == 1, block, leaf if level == 3 else frames + np.uint64(below)) | kind
    words |= np.where(rng.random(n) < 0.85, 1 << 10, 0).astype(np.uint64)
    bits = 0xFC | 1 << 11 | 0b111_1110 << 50 | 1 << 59 | 1 << 60 | 3 << 61
    kept = np.where(rng.random(n) < 0.75, bits & (1 << 59) - 1, bits).astype(np.uint64)
    words |= rng.integers(0, 1 << 63, n, dtype=np.uint64) & kept
    words |= np.where(rng.random(n) < 0.1, np.uint64(1 << 63), np.uint64(0))
    words |= np.where(rng.random(n) < 0.8, rng.choice(np.array([0, 2 << 8, 3 << 8], np.uint64), n), 0).astype(np.uint64)
    if stage == 1:
        words |= np.where(rng.random(n) < 0.85, 0xC0, 0).astype(np.uint64)
        words |= np.where((words >> 4 & 3 != 0) & (words >> 2 & 3 == 0), 1 << 2, 0).astype(np.uint64)
    return words


def _root(rng: random.Random, stage: int, level: int) -> int:
    return TABLES + (stage * 5 + level + 1) * REGION + rng.randrange(REGION >> 16) * 0x10000


def _start(granule: int, size: int) -> int:
    return 3 - (size - 1 - granule) // (granule - 3)


def registers(rng: random.Random, real: bool) -> dict[str, int]:
    """Random control registers; with real accesses TTBR1 belongs to the stub."""
    granules = [rng.choice((12, 14, 16)), 12 if real else rng.choice((12, 14, 16))]
    ds = rng.random() < 0.3
    sizes = [64 - rng.choice((16, 25, 12 if ds or granule == 16 else 16, rng.randint(12, 48))) for granule in granules]
    if real:
        sizes[1] = 39
    flags = ["HPD0", "TBI0", "TBID0", "HA", "HD", "E0PD0"] + ([] if real else ["HPD1", "TBI1", "TBID1", "E0PD1"])
    tcr = LAYOUTS["TCR_EL1"].build(
        T0SZ=64 - sizes[0], T1SZ=64 - sizes[1], TG0=TG0[granules[0]], TG1=TG1[granules[1]],
        IPS=rng.choice((2, 4, 5, 6, 6)), DS=int(ds), SH0=3, SH1=3, EPD0=int(rng.random() < 0.03),
        **{flag: int(rng.random() < 0.4) for flag in flags},
    )  # fmt: skip
    roots = [_root(rng, 0, max(-1, min(3, _start(*pair)))) for pair in zip(granules, sizes, strict=True)]
    sctlr = LAYOUTS["SCTLR_EL1"].build(M=1, C=1, I=1, DZE=1, UCI=1, SPAN=1, WXN=int(rng.random() < 0.2))
    values = {
        "SCTLR_EL1": sctlr,
        "TCR_EL1": tcr,
        "TTBR0_EL1": roots[0],
        "TTBR1_EL1": STUB_ROOT if real else roots[1],
        "MAIR_EL1": int.from_bytes(bytes([0xFF, 0xFF, *rng.choices(MAIR, k=6)]), "little"),
        "HCR_EL2": LAYOUTS["HCR_EL2"].build(RW=1),
    }
    deep = roots[0] < TABLES + REGION or roots[1] < TABLES + REGION
    if real or deep or rng.random() < 0.4:  # QEMU 7.2 aborts on a stage 2 Permission fault for a level -1 table
        return values
    return values | _stage2(rng)


def _stage2(rng: random.Random) -> dict[str, int]:
    granule, ds = rng.choice((12, 14, 16)), rng.random() < 0.3
    size, code = rng.choice(((40, 1), (44, 2), (48, 2), (rng.randint(25, 52), rng.randrange(4))))
    level = (2, 1, 0, 3)[code] if granule == 12 else 3 - code
    vtcr = LAYOUTS["VTCR_EL2"].build(
        T0SZ=64 - size, SL0=code, TG0=TG0[granule], PS=rng.choice((4, 5, 6)), SH0=3, DS=int(ds),
        HA=int(rng.random() < 0.5), HD=int(rng.random() < 0.5),
    )  # fmt: skip
    hcr = LAYOUTS["HCR_EL2"].build(VM=1, RW=1, PTW=int(rng.random() < 0.2))
    return {"VTCR_EL2": vtcr, "VTTBR_EL2": _root(rng, 1, level), "HCR_EL2": hcr}


def case(rng: random.Random, real: bool) -> dict[str, int]:
    """One case: registers by name, and the fields of the guest's record."""
    values = registers(rng, real)
    tcr = LAYOUTS["TCR_EL1"].decode(values["TCR_EL1"])
    upper = not real and rng.random() < 0.5
    size = min(52, 64 - tcr["T1SZ" if upper else "T0SZ"])
    va = rng.getrandbits(size) & ~7 | ((1 << 64) - (1 << size) if upper else 0)
    va ^= 1 << rng.randrange(3, 54) if rng.random() < 0.05 else 0
    values |= {"va": va, "pan": int(rng.random() < 0.3), "stub_va": STUB_VA}
    if not real:
        return values | {"op": rng.randrange(len(FORMS))}
    kind = rng.random()
    op = rng.choice((0x300, 0x400)) if kind < 0.2 else rng.choice((0x100, 0x200)) + rng.choice(list(REAL))
    return values | {"op": op}


def access(one: dict[str, int]) -> Arm64Access:
    """The access that a case's operation makes."""
    op, pan = one["op"], bool(one["pan"])
    if op < 0x100:
        return Arm64Access.at(FORMS[op], pan=pan)
    mode, k = op >> 8, op & 0xFF
    operation = Operation.FETCH if mode >= 3 else REAL[k]
    el = 0 if mode in (2, 4) or (mode == 1 and k in (2, 3)) else 1
    return Arm64Access(operation.traits.kind, el == 0, el, operation, pan)

"""Random and hostile trees of tables: a few frames that point at each other, at nothing and at themselves."""

from __future__ import annotations

import random

import numpy as np

from ptwalk.arch.arm64.registers import LAYOUTS
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory

TCR = LAYOUTS["TCR_EL1"]
ROOTS = {"TTBR0_EL1": 0x40000, "TTBR1_EL1": 0x60000}
SIZE = 2 << 20

X86 = {
    "x86-4level": ({"CR3": 0x40000}, {"maxphyaddr": 46}),
    "x86-5level": ({"CR3": 0x40000, "CR4": 0x1020}, {"maxphyaddr": 52}),
    "x86-smep-smap": ({"CR3": 0x40000, "CR4": 0x300020}, {"maxphyaddr": 40, "gbpages": 0}),
    "x86-no-wp-no-nx": ({"CR3": 0x40000, "CR0": 0x80000001, "EFER": 0x500}, {"maxphyaddr": 36}),
}
ARM = {
    "arm64-4k-48": {"T0SZ": 16, "T1SZ": 16, "TG1": 2, "IPS": 5},
    "arm64-4k-39-tbi-hafdbs": {"T0SZ": 25, "T1SZ": 25, "TG1": 2, "IPS": 2, "TBI0": 1, "HA": 1, "HD": 1},
    "arm64-4k-halves-differ": {"T0SZ": 25, "T1SZ": 16, "TG1": 2, "IPS": 5, "HPD0": 1, "E0PD1": 1},
    "arm64-4k-lpa2": {"T0SZ": 12, "T1SZ": 12, "TG1": 2, "IPS": 6, "DS": 1, "HA": 1},
    "arm64-16k-47": {"T0SZ": 17, "T1SZ": 17, "TG0": 2, "TG1": 1, "IPS": 4, "HPD1": 1},
    "arm64-16k-lpa2": {"T0SZ": 12, "T1SZ": 12, "TG0": 2, "TG1": 1, "IPS": 6, "DS": 1},
    "arm64-64k-52": {"T0SZ": 12, "T1SZ": 12, "TG0": 1, "TG1": 3, "IPS": 6, "HA": 1, "HD": 1},
    "arm64-64k-42": {"T0SZ": 22, "T1SZ": 22, "TG0": 1, "TG1": 3, "IPS": 3, "EPD0": 1},
}
MODES = [*X86, *ARM]
TWO_STAGES = {  # stage 2 with its root among the same frames: 4K, 40 bits, start level 1
    "HCR_EL2": LAYOUTS["HCR_EL2"].build(VM=1, RW=1),
    "VTCR_EL2": LAYOUTS["VTCR_EL2"].build(T0SZ=24, SL0=1, PS=2),
    "VTTBR_EL2": 0x80000,
}
WITHOUT_PLAN = ["x86-pae", "x86-32bit", "arm64-two-stages"]


def regime_of(mode):
    """The regime of a mode's name."""
    if mode in ("x86-pae", "x86-32bit"):
        cr4 = 0x20 if mode == "x86-pae" else 0x10
        registers = {"CR0": 0x80010001, "CR3": 0x40000, "CR4": cr4, "EFER": 0}
        return regime_from_registers("x86_64", registers, {"maxphyaddr": 36})
    if mode == "arm64-two-stages":
        return regime_from_registers("arm64", {**ROOTS, **TWO_STAGES, "TCR_EL1": TCR.build(**ARM["arm64-4k-48"])}, {})
    if mode in X86:
        return regime_from_registers("x86_64", *X86[mode])
    return regime_from_registers("arm64", {**ROOTS, "TCR_EL1": TCR.build(**ARM[mode])}, {})


def entry(rng, arch, frames, wild):
    """One entry: table-like, leaf-like, zero or noise, with an address inside memory, beyond it, or anything."""
    kind = rng.random()
    if kind < 0.06:
        return 0
    if kind < 0.06 + wild:
        return rng.choice([rng.getrandbits(64), (1 << 64) - 1, rng.getrandbits(64) & ~1, rng.getrandbits(48) | 3])
    flags = 0x67 if arch == "x86_64" else rng.choice([0x443, 0x443, 0x441, 0x4C3])
    for _ in range(rng.choice([0, 0, 1, 2])):
        flags ^= 1 << rng.choice([*range(12), *range(48, 64)])
    if arch == "x86_64" and rng.random() < 0.15:
        flags |= 0x80
    pa = rng.choice(frames) if rng.random() < 0.97 else rng.getrandbits(rng.choice([30, 40, 52])) & ~0xFFF
    if rng.random() < 0.2:
        pa = pa >> 21 << 21
    return flags | pa


def tables(mode, seed, *, wild=0.04, split=False):
    """(memory, regime): frames full of entries; with `split` the memory has three banks, one of them adjoining."""
    rng = random.Random(f"{mode} {seed}")
    regime = regime_of(mode)
    granule = 1 << regime.trees[0].levels[-1].shift
    memory = PhysicalMemory()
    if split:
        memory.add_ram(0, SIZE // 2)
        memory.add_ram(SIZE // 2, SIZE // 2)
        memory.add_ram(1 << 32, 1 << 16)
    else:
        memory.add_ram(0, SIZE)
    roots = [tree.root & ~(granule - 1) for tree in regime.trees]
    roots += [0x80000, 0x81000] if mode == "arm64-two-stages" else []
    frames = [*roots, *rng.sample(range(0x100000, SIZE, granule), min(12, (SIZE - 0x100000) // granule))]
    for frame in frames:
        for pa in range(frame, frame + granule, 8):
            memory.write_uint(pa, entry(rng, regime.arch, frames, wild))
    if mode == "x86-pae":  # its four root entries have neither rights nor an accessed bit
        for i in range(4):
            memory.write_uint(regime.root + i * 8, frames[1 + i] | 1)
    return memory, regime


def addresses(regime, seed, count):
    """Random virtual addresses: mostly inside the trees, some just outside, some tagged, some anything."""
    rng = random.Random(seed)
    vas = []
    for _ in range(count):
        tree = rng.choice(regime.trees)
        va = rng.randrange(tree.va_start, tree.va_end)
        if rng.random() < 0.15:
            va ^= 1 << rng.randrange(64)
        vas.append(va if rng.random() > 0.02 else rng.getrandbits(64))
    return np.array(vas, np.uint64)

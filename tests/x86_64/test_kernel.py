"""The compiled walker against the reference walker: random and hostile tables in every paging mode.

50,000 cases a mode: eight tables full of random entries that point at each other, at themselves, outside memory, with
all bits set, or at nothing, walked from random registers; each run prints its seed.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptwalk.arch.x86_64.entries import PAE_PDPTE
from ptwalk.arch.x86_64.registers import CR0, CR3, CR4, EFER
from ptwalk.mmu.kernels import translate_many
from ptwalk.mmu.kernels.reference import walk_one
from ptwalk.mmu.kernels.views import memory_view
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import AccessKind, Fault
from ptwalk.mmu.x86_64.access import X86Access
from ptwalk.mmu.x86_64.regime import X86Regime

SEED = 20261123
CASES, WALKS = 50_000, 500
PDPTE_BITS = PAE_PDPTE.mask("P", "PWT", "PCD") | (1 << 36) - 0x1000
TABLES = [0x1000 * n for n in range(1, 9)]


def _registers(rng: random.Random, mode: str) -> dict[str, int]:
    cr4 = rng.getrandbits(32) & CR4.mask("PSE", "PGE", "SMEP", "SMAP", "PKE", "PKS", "LASS", "LAM_SUP")
    cr3 = rng.choice(TABLES)
    if mode in ("4-level", "5-level"):
        cr4 |= CR4.mask("PAE") | (CR4.mask("LA57") if mode == "5-level" else 0)
        cr3 |= rng.getrandbits(64) & CR3.mask("LAM_U57", "LAM_U48")
    elif mode == "PAE":
        cr4 |= CR4.mask("PAE")
    long = mode.endswith("level")
    return {
        "CR0": CR0.build(PE=1, PG=1, WP=rng.getrandbits(1)),
        "CR3": cr3,
        "CR4": cr4,
        "EFER": EFER.build(LME=long, LMA=long, NXE=rng.getrandbits(1)),
        "RFLAGS": rng.getrandbits(1) << 18,
        "PKRU": rng.getrandbits(32),
        "PKRS": rng.getrandbits(32),
    }


def _entry(rng: random.Random, bits: int, *, pae: bool) -> int:
    kind = rng.random()
    if kind < 0.1:
        return 0
    if kind < 0.13:
        return (1 << bits) - 1
    flags = rng.getrandbits(12) & ~0x80 | (0x80 if rng.random() < 0.2 else 0) | (1 if rng.random() < 0.95 else 0)
    if rng.random() < 0.8:
        flags |= 0x67 if rng.random() < 0.7 else 0x05
    high = rng.getrandbits(bits) & ~0xFFF if rng.random() < 0.12 else rng.choice(TABLES)
    top = 0
    if bits == 64:
        top = (rng.getrandbits(1) << 63 if rng.random() < 0.15 else 0) | (0 if pae else rng.getrandbits(4) << 59)
    return high & (1 << min(bits, 52)) - 1 | flags | top if rng.random() < 0.97 else rng.getrandbits(bits)


def _memory(rng: random.Random, size: int, *, pae: bool) -> PhysicalMemory:
    ram = PhysicalMemory()
    ram.add_ram(0x1000, len(TABLES) * 0x1000)
    pool = [_entry(rng, size * 8, pae=pae) for _ in range(64)]
    for table in TABLES:
        for offset in range(0, 0x1000, size):
            entry = rng.choice(pool)
            if pae and offset < 32 and rng.random() < 0.9:  # any table may be the root: its first entries as PDPTEs
                entry &= PDPTE_BITS
            ram.write_uint(table + offset, entry, size)
    return ram


def _access(rng: random.Random) -> X86Access:
    kind = rng.choice(list(AccessKind))
    return X86Access(
        kind, bool(rng.getrandbits(1)), implicit=kind is AccessKind.READ and rng.random() < 0.2,
        shadow_stack=kind is not AccessKind.EXECUTE and rng.random() < 0.1,
    )  # fmt: skip


def _addresses(rng: random.Random, mode: str) -> list[int]:
    bits = {"32-bit": 32, "PAE": 32, "4-level": 48, "5-level": 57}[mode]
    halves = [0, ((1 << 64) - 1) << bits - 1 & (1 << 64) - 1] if bits > 32 else [0]
    inside = [rng.getrandbits(bits - 1) | rng.choice(halves) for _ in range(WALKS - WALKS // 20)]
    return inside + [rng.getrandbits(64) for _ in range(WALKS // 20)]


@pytest.mark.parametrize("mode", ["32-bit", "PAE", "4-level", "5-level"])
def test_kernel_equals_reference(mode: str) -> None:
    rng = random.Random(f"{SEED}{mode}")
    print(f"seed {SEED}, mode {mode}")
    outcomes = {"translated": 0, "faulted": 0, "bus error": 0}
    for _ in range(CASES // WALKS):
        regime = X86Regime.from_registers(
            _registers(rng, mode), {"maxphyaddr": rng.choice([36, 40, 52]), "gbpages": rng.getrandbits(1)}
        )
        ram, access, vas = _memory(rng, regime.mode.entry_size, pae=mode == "PAE"), _access(rng), _addresses(rng, mode)
        batch = translate_many(memory_view(ram), regime, np.array(vas, np.uint64), access, form="full")
        for k, va in enumerate(vas):
            end = walk_one(ram, regime, va, access, update=False)
            name = batch.faults[batch.fault[k]]
            where = f"seed {SEED} mode {mode} va {va:#018x} {access} {dict(regime.registers)}"
            if end is None:
                assert name == "bus error", where
                outcomes["bus error"] += 1
            elif isinstance(end, Fault):
                assert (name, batch.code[k]) == (end.name, end.code), where
                assert end.level is None or batch.level[k] == end.level, where
                outcomes["faulted"] += 1
            else:
                got = (name, int(batch.pa[k]), int(batch.rights[k]), int(batch.page_shift[k]), int(batch.level[k]))
                assert got == ("", end.pa, int(end.rights), end.page_shift, end.level), where
                outcomes["translated"] += 1
    assert sum(outcomes.values()) == CASES
    assert min(outcomes.values()) > CASES // 200, outcomes

"""Random and hostile page tables through both walkers: `python -m ptwalk.mmu.x86_64.campaign --cases N --seed S`.

A round builds one processor state and eight tables full of entries that point at each other, at themselves, at nothing,
outside memory, or have all bits set, and asks the reference walker and the kernel about the same addresses. Outcomes
and, where accessed and dirty bits are written, the memory afterwards have to be equal. A difference is printed with the
seed that reproduces it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ...arch.x86_64.entries import PAE_PDPTE, PDE_2M
from ...arch.x86_64.registers import CR0, CR3, CR4, EFER, RFLAGS
from ..kernels.batch import NO_LEVEL, pack_info
from ..kernels.views import memory_view
from ..memory import PhysicalMemory
from ..walk import AccessKind
from .access import X86Access
from .kernels import FAULTS, translate
from .npt import NestedRegime
from .regime import X86Regime

SINGLE = ("32-bit", "PAE", "4-level", "5-level")
NESTED = "nested "
MODES = (*SINGLE, *(NESTED + mode for mode in SINGLE))
ROUND = 500
TABLES = tuple(0x1000 * n for n in range(1, 9))
HOST_TABLES = tuple(0x1000 * n for n in range(9, 14))
BITS = {"32-bit": 32, "PAE": 32, "4-level": 48, "5-level": 57}
_PDPTE_BITS = PAE_PDPTE.mask("P", "PWT", "PCD") | (1 << 36) - 0x1000
_PS, _XD_SHIFT, _PK_SHIFT = PDE_2M["PS"].mask, PDE_2M["XD"].shift, PDE_2M["PK"].shift
_COMMON, _READ_ONLY = 0x67, 0x05  # P RW US A D, and P US
_SWITCHES = CR4.mask("PSE", "PGE", "SMEP", "SMAP", "PKE", "PKS", "LASS", "LAM_SUP")


@dataclass
class Result:
    """What a campaign found: outcomes by name, and the first differences in words."""

    outcomes: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.outcomes.values())


def registers(rng: random.Random, mode: str) -> dict[str, int]:
    """Random registers of a paging mode, all of them legal."""
    cr3, cr4 = rng.choice(TABLES), rng.getrandbits(32) & _SWITCHES
    if mode.endswith("level"):
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
        "RFLAGS": RFLAGS.build(AC=rng.getrandbits(1)),
        "PKRU": rng.getrandbits(32),
        "PKRS": rng.getrandbits(32),
    }


def entry(rng: random.Random, bits: int, *, pae: bool) -> int:
    """One entry: mostly a link to another table, sometimes anything."""
    kind = rng.random()
    if kind < 0.1:
        return 0
    if kind < 0.13:
        return (1 << bits) - 1
    if kind < 0.16:
        return rng.getrandbits(bits)
    flags = rng.getrandbits(12) & ~_PS | (_PS if rng.random() < 0.2 else 0) | (1 if rng.random() < 0.95 else 0)
    if rng.random() < 0.8:
        flags |= _COMMON if rng.random() < 0.7 else _READ_ONLY
    high = rng.getrandbits(min(bits, 52)) & ~0xFFF if rng.random() < 0.12 else rng.choice(TABLES)
    top = 0
    if bits == 64:
        top = (rng.random() < 0.15) << _XD_SHIFT | (0 if pae else rng.getrandbits(4) << _PK_SHIFT)
    return high | flags | top


def image(rng: random.Random, size: int, *, pae: bool) -> bytes:
    """The tables; any of them may be the root, so with PAE their first four entries look like PDPTEs."""
    pool = [entry(rng, size * 8, pae=pae) for _ in range(64)]
    content = bytearray()
    for offset in range(0, 0x1000 * len(TABLES), size):
        value = rng.choice(pool)
        if pae and offset % 0x1000 < 32 and rng.random() < 0.9:
            value &= _PDPTE_BITS
        content += value.to_bytes(size, "little")
    return bytes(content)


def host_image(rng: random.Random) -> bytes:
    """Host tables for nested paging: mostly a path to the guest's tables, each level a frame of its own."""
    wild, content = rng.choice([0.0, 0.002, 0.02]), bytearray()
    for level in range(5, 0, -1):
        for index in range(512):
            known = HOST_TABLES[6 - level] if level > 1 else TABLES[(index - 1) % len(TABLES)]
            flags = _COMMON if rng.random() > wild else rng.getrandbits(12)
            large = _PS if level == 2 and rng.random() < 0.05 else 0
            value = known & ~0x1FFFFF | _COMMON | large if large else known | flags
            content += (entry(rng, 64, pae=False) if rng.random() < wild else value).to_bytes(8, "little")
    return bytes(content)


def nested(rng: random.Random, guest: X86Regime) -> tuple[NestedRegime, bytes]:
    """A guest over a host with random switches, and the host's tables."""
    depth = rng.choice([4, 5])
    values = registers(rng, f"{depth}-level")
    values["CR3"] = HOST_TABLES[5 - depth]
    host = X86Regime.from_registers(values, {"maxphyaddr": guest.maxphyaddr, "gbpages": rng.getrandbits(1)})
    return NestedRegime(guest, host), host_image(rng)


def access(rng: random.Random) -> X86Access:
    """A random access."""
    kind = rng.choice(list(AccessKind))
    implicit = kind is AccessKind.READ and rng.random() < 0.2
    shadow_stack = kind is not AccessKind.EXECUTE and rng.random() < 0.1
    return X86Access(kind, bool(rng.getrandbits(1)), implicit=implicit, shadow_stack=shadow_stack)


def addresses(rng: random.Random, mode: str, count: int) -> list[int]:
    """Mostly canonical addresses of both halves."""
    bits = BITS[mode]
    upper = ((1 << 64) - 1) << bits - 1 & (1 << 64) - 1
    halves = [0, upper] if bits > 32 else [0]
    strays = count // 20
    inside = [rng.getrandbits(bits - 1) | rng.choice(halves) for _ in range(count - strays)]
    return inside + [rng.getrandbits(64) for _ in range(strays)]


def play(mode: str, seed: int, result: Result, count: int = ROUND) -> None:
    """One round: `count` walks by both walkers over copies of one memory."""
    rng = random.Random(f"{mode}{seed}")
    features: dict[str, int | str] = {"maxphyaddr": rng.choice([36, 40, 52]), "gbpages": rng.getrandbits(1)}
    paging = mode.removeprefix(NESTED)
    guest = X86Regime.from_registers(registers(rng, paging), features)
    content = image(rng, guest.mode.entry_size, pae=paging == "PAE")
    regime: X86Regime | NestedRegime = guest
    if mode.startswith(NESTED):
        regime, host_tables = nested(rng, guest)
        content += host_tables
    asked, update = access(rng), bool(rng.getrandbits(1))
    vas = addresses(rng, paging, count)
    theirs, ours = _memory(content), _memory(content)
    pa, info = np.empty(count, np.uint64), np.empty(count, np.uint64)
    translate(memory_view(ours), regime, np.array(vas, np.uint64), asked, update, pa, info)
    where = f"--mode '{mode}' --seed {seed}"
    for k, va in enumerate(vas):
        name, want_pa, want = _expected(theirs, regime, va, asked, update)
        result.outcomes[name] += 1
        if (int(pa[k]), int(info[k])) != (want_pa, want):
            text = f"{where}: va {va:#018x} {asked}: kernel {int(pa[k]):#x} {int(info[k]):#018x}"
            result.differences.append(f"{text}, reference {want_pa:#x} {want:#018x}")
    if ours.read(TABLES[0], len(content)) != theirs.read(TABLES[0], len(content)):
        result.differences.append(f"{where}: the memory afterwards differs")


def _memory(content: bytes) -> PhysicalMemory:
    ram = PhysicalMemory()
    ram.add_bytes(TABLES[0], content)
    return ram


def _expected(
    ram: PhysicalMemory, regime: X86Regime | NestedRegime, va: int, asked: X86Access, update: bool
) -> tuple[str, int, int]:
    from ..kernels.reference import BUS_ERROR, info_of, walk_one

    end = walk_one(ram, regime, va, asked, update=update)
    if end is None:
        return BUS_ERROR, 0, NO_LEVEL << 16 | FAULTS.index(BUS_ERROR) << 24
    name = getattr(end, "name", "translated")
    info = pack_info(end, FAULTS) if name == "translated" else info_of(end, FAULTS)
    return name, getattr(end, "pa", 0), info & (1 << 64) - 1  # a batch keeps the low 32 bits of EXITINFO1


def run(mode: str, cases: int, seed: int) -> Result:
    """`cases` walks of one mode, in rounds of `ROUND` with seeds from `seed` on."""
    result = Result()
    for number in range(-(-cases // ROUND)):
        play(mode, seed + number, result, min(ROUND, cases - number * ROUND))
    return result


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ptwalk.mmu.x86_64.campaign", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="walks in each mode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode; may be repeated")
    options = parser.parse_args()
    bad = 0
    for mode in options.mode or MODES:
        start = time.monotonic()
        result = run(mode, options.cases, options.seed)
        told = ", ".join(f"{name} {n}" for name, n in sorted(result.outcomes.items()))
        seconds = time.monotonic() - start
        print(f"{mode}: {result.cases} cases, {len(result.differences)} differences, {seconds:.1f} s ({told})")
        for text in result.differences[:10]:
            print(f"  {text}")
        bad += len(result.differences)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare two walkers on the memory dump of a running kernel: one written from a textbook, and ptwalk's compiled one.

    python examples/compare_walkers.py [DUMP]

Put your own walker in the place of `textbook`. The first addresses on which the two differ are printed.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ptwalk.arch.x86_64.registers import CR4
from ptwalk.loaders import load
from ptwalk.mmu.kernels import translate_many
from ptwalk.mmu.machine import Machine
from ptwalk.mmu.spaces import leaves

DUMP = Path(__file__).parent / "testkit" / "linux-6.1.elf.xz"
Walker = Callable[[Machine, int], int | None]


def textbook(machine: Machine, va: int) -> int | None:
    """The physical address of `va` on x86-64 with five levels, or None: no rights, no reserved bits, no attributes."""
    table = machine.registers["CR3"] & 0x000F_FFFF_FFFF_F000
    for shift in (48, 39, 30, 21, 12):
        entry = int.from_bytes(machine.memory.read(table + (va >> shift & 511) * 8, 8), "little")
        if not entry & 1:
            return None
        if shift == 12 or (shift in (30, 21) and entry & 0x80):
            offset = (1 << shift) - 1
            return entry & 0x000F_FFFF_FFFF_F000 & ~offset | va & offset
        table = entry & 0x000F_FFFF_FFFF_F000
    return None


def addresses(machine: Machine) -> np.ndarray:
    """Every mapped page somewhere in its middle, and as many addresses at random."""
    mapped = np.array([leaf.va + leaf.size // 2 for leaf in leaves(machine.memory, machine.regime())], np.uint64)
    anywhere = np.random.default_rng(1).integers(0, 1 << 64, len(mapped), np.uint64, endpoint=False)
    sign = np.uint64(0xFF00_0000_0000_0000)  # 57 bits are translated, bit 56 fills the others
    return np.concatenate([mapped, np.where(anywhere >> np.uint64(56) & 1, anywhere | sign, anywhere & ~sign)])


def compare(machine: Machine, mine: Walker) -> list[str]:
    """One line for each address on which `mine` and ptwalk differ."""
    machine.registers["CR4"] &= ~CR4["SMAP"].mask  # it keeps the kernel out of user pages; the textbook knows no rights
    vas = addresses(machine)
    batch = translate_many(machine.memory, machine.regime(), vas)
    theirs = [int(pa) if ok else None for pa, ok in zip(batch.pa, batch.ok, strict=True)]
    answers = [(int(va), mine(machine, int(va)), their) for va, their in zip(vas, theirs, strict=True)]
    return [f"{va:#018x}: mine {mine!r}, ptwalk {their!r}" for va, mine, their in answers if mine != their]


def main(dump: str = str(DUMP)) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(dump)
        if path.suffix == ".xz":
            path = Path(folder, path.stem)
            path.write_bytes(lzma.decompress(Path(dump).read_bytes()))
        machine = load(path)
        different = compare(machine, textbook)
        print(f"{2 * sum(1 for _ in leaves(machine.memory, machine.regime()))} addresses, {len(different)} differ")
        print("\n".join(different[:10]))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Synthetic address spaces: 4 KiB pages over scattered tables and frames, for x86-64 (4 levels) and arm64 (48 bits)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptwalk.arch.arm64.registers import LAYOUTS
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.regime import Regime

U64 = np.uint64
BASE = 2 << 39  # the first virtual address
ABSENT = 0.02
TABLE = {"x86_64": 0x27, "arm64": 0x3}
PAGE = {"x86_64": 0x67, "arm64": 0x443}


@dataclass(frozen=True)
class Scene:
    """`size` bytes mapped from BASE up by tables in `memory`, rooted at `root`; frames lie below `ram`."""

    memory: PhysicalMemory
    regime: Regime
    root: int
    size: int
    ram: int

    @property
    def words(self) -> Any:
        return np.frombuffer(self.memory.banks[0].data, U64)

    def addresses(self, count: int, seed: int = 2) -> Any:
        """Random addresses inside the mapping."""
        return U64(BASE) + np.random.default_rng(seed).integers(0, self.size, count, dtype=U64)


def scene(size: int, arch: str = "x86_64", seed: int = 1, ram: int | None = None) -> Scene:
    """Map `size` bytes; tables take `size` / 512 bytes of real memory and a little more."""
    rng = np.random.default_rng(seed)
    pages = size >> 12
    leaf_tables = max(1, pages >> 9)
    directories = leaf_tables + 511 >> 9
    frames = 1 << (2 * (leaf_tables + directories + 2) - 1).bit_length()
    memory = PhysicalMemory()
    words = np.zeros(frames * 512, U64)  # numpy asks the host for huge pages
    memory.add_bytes(0, memoryview(words).cast("B"))
    order = rng.permutation(frames)[: leaf_tables + directories + 2]
    root, upper, middle, last = order[0], order[1], order[2 : 2 + directories], order[2 + directories :]
    table, page = TABLE[arch], PAGE[arch]
    words[root * 512 + 2] = int(upper) << 12 | table
    words[upper * 512 + np.arange(directories)] = middle.astype(U64) << U64(12) | U64(table)
    index = np.arange(leaf_tables)
    words[middle[index >> 9] * 512 + (index & 511)] = last.astype(U64) << U64(12) | U64(table)
    ram = ram or size
    for first in range(0, leaf_tables, 4096):
        part = last[first : first + 4096]
        entries = rng.integers(0, ram >> 12, (len(part), 512), dtype=U64) << U64(12) | U64(page)
        entries[rng.random(entries.shape) < ABSENT] = 0
        words.reshape(-1, 512)[part] = entries
    return Scene(memory, _regime(arch, int(root) << 12), int(root) << 12, size, ram)


def _regime(arch: str, root: int) -> Regime:
    if arch == "x86_64":
        return regime_from_registers(arch, {"CR3": root}, {"maxphyaddr": 46})
    tcr = LAYOUTS["TCR_EL1"].build(T0SZ=16, T1SZ=16, TG1=2, IPS=5)
    return regime_from_registers(arch, {"TTBR0_EL1": root, "TTBR1_EL1": root, "TCR_EL1": tcr}, {})

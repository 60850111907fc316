"""Where the levels come from: one address cut into table indices, in every paging mode that ptwalk knows.

python examples/levels.py [ADDRESS]
"""

from __future__ import annotations

import sys

from ptwalk.loaders.presets import PRESETS
from ptwalk.mmu.machine import ROOT_REGISTER, regime_from_registers

UNITS = {0: "", 10: "K", 20: "M", 30: "G", 40: "T"}


def unit(shift: int) -> str:
    """2**shift in the largest unit: 21 is 2M."""
    base = shift // 10 * 10
    return f"{1 << shift - base}{UNITS[base]}"


def main(address: str = "0x5f_1234_5678") -> None:
    va = int(address, 16)
    for preset in PRESETS.values():
        roots = {ROOT_REGISTER[preset.arch]: 0x1_0000}
        regime = regime_from_registers(preset.arch, {**preset.registers, **roots}, preset.features)
        tree = regime.trees[0]
        print(f"{preset.name}: {preset.title}")
        if va not in tree:
            print(f"  {va:#x} is beyond the {tree.va_end.bit_length() - 1} bits of {tree.register}")
            continue
        for level in tree.levels:
            page = f", an entry maps {unit(level.shift)} or points at a table" if level.leaf else ""
            if level is tree.levels[-1]:
                page = f", an entry maps {unit(level.shift)}"
            top = level.shift + level.index_bits - 1
            print(f"  {level.name:<6} {level.linux_name:<4} bits {top:>2}-{level.shift}: entry {level.index(va)}{page}")
        last = tree.levels[-1].shift
        print(f"  offset       bits {last - 1:>2}-0: {va & (1 << last) - 1:#x}")


if __name__ == "__main__":
    main(*sys.argv[1:])

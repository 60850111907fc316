"""Memory maps in text: /proc/iomem, and the e820 table that Linux prints at boot.

Both give inclusive ends; ranges here are half-open. /proc/iomem read without privilege holds zeros and is refused.
A machine made from a map has that much empty RAM and the registers of a preset.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from ..mmu.memory import PhysicalMemory
from .options import Options
from .overrides import apply_overrides
from .presets import choose_preset

MAX_FILE = 1 << 24
_IOMEM = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)", re.ASCII)
_E820 = re.compile(r".*BIOS-(?:e820|provided).*\[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\] (.*)", re.ASCII)
_RAM = {"System RAM", "usable"}


def load_memory_map(path: Path, options: Options) -> Machine:
    """A machine with the RAM that the text lists, and nothing in it."""
    ranges = read_memory_map(path)
    chosen = choose_preset(options.arch, options.preset, path)
    memory = PhysicalMemory()
    for start, end, name in ranges:
        if name in _RAM:
            try:
                memory.add_ram(start, end - start, name)
            except InputError as error:
                raise InputError(error.problem, file=path, field="range", value=start) from error
    if not memory.banks:
        raise InputError("no range is RAM", file=path)
    notes = [f"empty RAM as the text lists it; registers not given are those of the preset {chosen.name}"]
    notes += [f"{name}: {start:#x}-{end:#x}" for start, end, name in ranges if name not in _RAM]
    machine = Machine(
        arch=chosen.arch,
        memory=memory,
        registers=dict(chosen.registers),
        features=dict(chosen.features),
        source=str(path),
        format="memory map",
        notes=notes,
    )
    apply_overrides(machine, options)
    return machine


def read_memory_map(path: Path) -> list[tuple[int, int, str]]:
    """The outermost ranges (start, end, name) of /proc/iomem, or the e820 ranges in a boot log, in order."""
    if (size := path.stat().st_size) > MAX_FILE:
        raise InputError(f"larger than {MAX_FILE:#x} bytes: not a memory map", file=path, value=size)
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    ranges = _iomem(lines, path) if any(map(_IOMEM.fullmatch, lines)) else _e820(lines, path)
    if ranges and not any(end > 1 for _, end, _ in ranges):
        raise InputError("every address is zero: /proc/iomem has to be read as root", file=path)
    return ranges


def _iomem(lines: list[str], path: Path) -> list[tuple[int, int, str]]:
    ranges = []
    for number, line in enumerate(lines, 1):
        match = _IOMEM.fullmatch(line)
        if match is None:
            if line.strip():
                raise InputError(f"line {number} is none of /proc/iomem", file=path, value=line[:60])
            continue
        if not match[1]:
            ranges.append(_half_open(match[2], match[3], match[4], number, path))
    return ranges


def _e820(lines: list[str], path: Path) -> list[tuple[int, int, str]]:
    found = ((number, _E820.fullmatch(line)) for number, line in enumerate(lines, 1))
    return [_half_open(match[1], match[2], match[3].strip(), number, path) for number, match in found if match]


def _half_open(first: str, last: str, name: str, number: int, path: Path) -> tuple[int, int, str]:
    start, end = int(first, 16), int(last, 16) + 1
    if end <= start:
        raise InputError(f"line {number}: the range ends before it starts", file=path, value=f"{first}-{last}")
    return start, end, name

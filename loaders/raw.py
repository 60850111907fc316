"""A raw image: nothing but bytes of physical memory; registers or a root come with the call.

The file is memory-mapped copy on write: a machine may write to its memory, the file stays as it is. The host sets no
memory aside for that, so that a file may be larger than its RAM.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from ..mmu.memory import MAP_NORESERVE, PhysicalMemory
from .options import Options
from .overrides import apply_overrides
from .presets import choose_preset


def map_file(path: Path) -> memoryview:
    """A private, writable view of a file; InputError where it is empty or cannot be mapped."""
    try:
        with path.open("rb") as file:
            flags, rights = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            return memoryview(mmap.mmap(file.fileno(), 0, flags=flags, prot=rights))
    except ValueError as error:  # mmap refuses to map nothing
        raise InputError("the file is empty", file=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def load_raw(path: Path, options: Options) -> Machine:
    """A raw image whose first byte lies at `base`; a preset gives the registers that are not given."""
    chosen = choose_preset(options.arch, options.preset, path)
    memory = PhysicalMemory()
    try:
        memory.add_bytes(options.base or 0, map_file(path), path.name)
    except InputError as error:
        raise InputError(error.problem, file=path, field="base", value=options.base) from error
    machine = Machine(
        arch=chosen.arch,
        memory=memory,
        registers=dict(chosen.registers),
        features=dict(chosen.features),
        source=str(path),
        format="raw image",
        notes=[f"registers not given are those of the preset {chosen.name}"],
    )
    apply_overrides(machine, options)
    return machine

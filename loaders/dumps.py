"""Dumps that hold memory but few registers: compressed kernel dumps, LiME and AVML."""

from __future__ import annotations

from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from .elf_notes import add_registers, parse_notes, read_notes
from .kdump import read_kdump
from .lime import read_lime
from .options import Options
from .overrides import apply_overrides
from .presets import choose_preset

_MACHINES = {"x86_64": "x86_64", "i686": "x86_64", "aarch64": "arm64"}


def load_kdump(path: Path, options: Options) -> Machine:
    """A compressed kernel dump; registers from QEMU's notes or from VMCOREINFO."""
    dump = read_kdump(path)
    info = dump.vmcoreinfo
    if dump.machine not in _MACHINES:
        raise InputError("not a machine ptwalk knows", file=path, field="utsname.machine", value=dump.machine)
    arch = _MACHINES[dump.machine]
    machine = Machine(arch=arch, memory=dump.memory, registers={}, source=str(path), format="compressed kernel dump")
    machine.kernel = info.get("OSRELEASE") or dump.release or None
    notes = read_notes(parse_notes(dump.notes, 0, 4, f"{path}: notes"), f"{path}: notes")
    notes.vmcoreinfo |= info
    add_registers(machine, notes, options.preset, long_mode=dump.machine == "x86_64")
    apply_overrides(machine, options)
    return machine


def load_lime(path: Path, options: Options) -> Machine:
    """A LiME or AVML dump, which holds memory and nothing else."""
    chosen = choose_preset(options.arch, options.preset, path)
    machine = Machine(
        arch=chosen.arch,
        memory=read_lime(path),
        registers=dict(chosen.registers),
        features=dict(chosen.features),
        source=str(path),
        format="LiME dump",
        notes=[f"registers not given are those of the preset {chosen.name}"],
    )
    apply_overrides(machine, options)
    return machine

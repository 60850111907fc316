"""What the caller says over what the file says: single registers, a root table, a paging mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine, Space
from .options import Options


def known_registers(arch: str) -> frozenset[str]:
    """The register names that a walk on `arch` may read."""
    if arch == "arm64":
        from ..arch.arm64.registers import LAYOUTS
    else:
        from ..arch.x86_64.registers import LAYOUTS
    return frozenset(LAYOUTS)


def check_registers(arch: str, registers: Mapping[str, int], *, file: object = None, field: str = "registers") -> None:
    """Refuse unknown register names and values that do not fit 64 bits (TTBRs of 128-bit descriptors: 128)."""
    known = known_registers(arch)
    for name, value in registers.items():
        if name not in known:
            raise InputError(f"no register of {arch} that a walk reads", file=file, field=field, value=name)
        if not 0 <= value < 1 << (128 if name.startswith("TTBR") else 64):
            raise InputError("does not fit the register", file=file, field=f"{field}.{name}", value=value)


def apply_overrides(machine: Machine, options: Options) -> None:
    """Put the caller's registers and root over the machine's own.

    `registers_from` names a file with QEMU's `info registers`: the first CPU's are the machine's, and each CPU becomes
    a space. `root` is the physical address of the root table: CR3, or TTBR0_EL1 and (where the machine has none)
    TTBR1_EL1.
    """
    if options.registers_from is not None:
        _from_info_registers(machine, Path(options.registers_from))
    if options.registers:
        check_registers(machine.arch, options.registers, file=machine.source)
        machine.registers |= options.registers
    if options.root is None:
        return
    if machine.arch == "x86_64":
        machine.registers["CR3"] = options.root
        return
    from .ttbr import encode_ttbr

    value = encode_ttbr(machine.registers.get("TCR_EL1", 0), options.root, "root", machine.source)
    machine.registers["TTBR0_EL1"] = value
    machine.registers.setdefault("TTBR1_EL1", value)


def _from_info_registers(machine: Machine, path: Path) -> None:
    from .qemu_text import read_info_registers

    if machine.arch != "x86_64":
        raise InputError("QEMU's `info registers` shows control registers of x86 CPUs alone", file=path)
    cpus = read_info_registers(path)
    machine.registers |= cpus[0]
    for number, cpu in enumerate(cpus):
        machine.spaces[f"cpu{number}"] = Space(f"cpu{number}", cpu, note="as this CPU's registers stood")

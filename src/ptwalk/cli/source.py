"""The options that say how to read FILE, and the machine behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arch.errors import InputError
from ..loaders import load
from ..mmu.machine import ROOT_REGISTER, Machine
from ..mmu.regime import Regime
from . import common


@dataclass(frozen=True, slots=True)
class Source:
    """How to read FILE where it does not say so itself.

    Args:
        checkpoint: Which checkpoint of a capture (default: the last with user processes).
        arch: Architecture of a raw image: x86_64 or arm64.
        base: Physical address of a raw image's first byte, in hexadecimal (default 0).
        preset: Paging mode of a raw image: x86_64-4level, arm64-4k-48 ...
        registers_from: A file with the text of QEMU's `info registers`, for a raw image or a dump of an x86 machine.
        register: A register's value, NAME=HEX, over what FILE says; may be repeated.
    """

    checkpoint: int | None = None
    arch: str | None = None
    base: str | None = None
    preset: str | None = None
    register: list[str] = field(default_factory=list)
    registers_from: Path | None = None

    def registers(self) -> dict[str, int]:
        """The --register values; InputError names the one that is not NAME=HEX."""
        result = {}
        for text in self.register:
            name, equals, digits = text.partition("=")
            if not equals or not name:
                raise InputError("not of the form NAME=HEX", field="--register", value=text)
            result[name.strip().upper()] = common.value(digits, 128, f"--register {name}")
        return result

    def options(self) -> dict[str, Any]:
        """What `load` takes: only the options that were given."""
        given = {
            "checkpoint": self.checkpoint,
            "arch": self.arch,
            "base": None if self.base is None else common.address(self.base, "--base"),
            "preset": self.preset,
            "registers": self.registers() or None,
            "registers_from": self.registers_from,
        }
        return {name: x for name, x in given.items() if x is not None}


DEFAULT = Source()


def open_machine(file: Path, source: Source, root: str | None = None) -> Machine:
    """Load FILE as the options say."""
    options = source.options()
    if root is not None:
        options["root"] = common.address(root, "--root")
    return load(file, **options)


def choose(machine: Machine, process: str | None, root: str | None) -> tuple[Regime, str]:
    """The regime that --process or --root asks for, and a label for it; otherwise the machine's own registers."""
    if process is not None and root is not None:
        raise InputError("give either --process or --root, not both")
    if root is not None:
        pa = common.address(root, "--root")
        return machine.regime(root=pa), f"root {pa:#018x}"
    if process is not None:
        space = machine.space(process)
        pid = f" (pid {space.pid})" if space.pid is not None else ""
        return machine.regime(process), f"process {process}{pid}"
    if ROOT_REGISTER[machine.arch] in machine.registers:
        return machine.regime(), "the machine's own registers"
    if len(machine.spaces) == 1:
        (name,) = machine.spaces
        return machine.regime(name), f"process {name}, the only one"
    known = ", ".join(machine.spaces) or "none"
    raise InputError(f"say which address space: --process NAME (there are: {known}) or --root PA", file=machine.source)

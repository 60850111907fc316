"""`ptwalk info FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..arch.errors import RegisterError
from ..mmu.machine import Machine
from . import common, listed
from .source import DEFAULT, Source, open_machine

_BANKS_SHOWN = 16


def info(
    file: Path,
    /,
    *,
    root: str | None = None,
    json: bool = False,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """What FILE is: format, architecture, paging mode, registers, memory banks, address spaces.

    Args:
        file: A capture, dump, raw image, layout description, ptdump text, /proc/PID folder ...
        root: Physical address of the root table, where FILE names none.
        json: One JSON object instead of text (docs/json.md).
    """
    listing = listed.opened(file, source, root=root)
    if listing is not None:
        return listed.info(listing, json)
    machine = open_machine(file, source, root)
    if json:
        common.print_json(shape(machine))
        return 0
    print(
        f"{machine.source}: {machine.format}, {machine.arch}" + (f", Linux {machine.kernel}" if machine.kernel else "")
    )
    _print_table("paging", {name: plain(x) for name, x in paging(machine).items()})
    _print_table("registers", {name: f"{x:#018x}" for name, x in machine.registers.items()})
    _print_table("features", {name: str(x) for name, x in machine.features.items()})
    _print_banks(machine)
    _print_table("address spaces", {name: _space(machine, name) for name in machine.spaces})
    for note in machine.notes:
        print(f"note: {note}")
    return 0


def paging(machine: Machine) -> dict[str, object]:
    """What the registers make of translation; a single `refused` where they cannot translate by themselves."""
    for space in (None, *machine.spaces):
        try:
            return dict(machine.regime(space).describe())
        except RegisterError as error:
            refusal = str(error)
    return {"refused": refusal}


def plain(x: object) -> str:
    """A value of `describe()` in words: tables and lists on one line.

    >>> plain({"granule": "4K", "switches": ["HA", "HD"]}), plain([]), plain(True)
    ('granule 4K, switches HA HD', 'none', 'yes')
    """
    if isinstance(x, dict):
        return ", ".join(f"{name} {plain(value)}" for name, value in x.items())
    if isinstance(x, list | tuple):
        return " ".join(map(str, x)) or "none"
    return {True: "yes", False: "no"}[x] if isinstance(x, bool) else str(x)


def shape(machine: Machine) -> dict[str, Any]:
    """The stable JSON shape of `info` (docs/json.md)."""
    return {
        "file": machine.source,
        "format": machine.format,
        "arch": machine.arch,
        "kernel": machine.kernel,
        "paging": paging(machine),
        "registers": {name: hex(x) for name, x in machine.registers.items()},
        "features": machine.features,
        "banks": [{"start": hex(b.start), "end": hex(b.end), "source": b.source} for b in machine.memory.banks],
        "spaces": [
            {"name": s.name, "pid": s.pid, "registers": {k: hex(x) for k, x in s.registers.items()}, "note": s.note}
            for s in machine.spaces.values()
        ],
        "notes": machine.notes,
    }


def _space(machine: Machine, name: str) -> str:
    space = machine.spaces[name]
    pid = f"pid {space.pid:<6} " if space.pid is not None else ""
    registers = "  ".join(f"{register}={x:#018x}" for register, x in space.registers.items())
    return f"{pid}{registers}" + (f"  {space.note}" if space.note else "")


def _print_banks(machine: Machine) -> None:
    banks = machine.memory.banks
    total = sum(len(bank.data) for bank in banks)
    print(f"memory: {len(banks)} banks, {common.size(total)}")
    for bank in banks[:_BANKS_SHOWN]:
        print(f"  {bank.start:#018x}-{bank.end:#018x}  {common.size(bank.end - bank.start):>8}  {bank.source}")
    if len(banks) > _BANKS_SHOWN:
        print(f"  ... and {len(banks) - _BANKS_SHOWN} more (all of them with --json)")


def _print_table(title: str, rows: dict[str, str]) -> None:
    if rows:
        print(f"{title}:")
    for name, text in rows.items():
        print(f"  {name:<14} {text}")

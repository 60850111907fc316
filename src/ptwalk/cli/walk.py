"""`ptwalk walk FILE VA`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..arch.linux import linux_for
from ..mmu.machine import Machine
from ..mmu.regime import EntryType, Regime
from ..mmu.walk import Access, AccessKind, Fault, Outcome, Step, Translation, finish
from ..render import outcome_lines, step_line
from . import common, listed
from .source import DEFAULT, Source, choose, open_machine


def walk(
    file: Path,
    va: str,
    /,
    *,
    process: str | None = None,
    root: str | None = None,
    access: Literal["read", "write", "execute"] = "read",
    mode: Literal["user", "kernel"] | None = None,
    json: bool = False,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """Walk one virtual address, a line a level; exit 1 when it faults.

    Args:
        file: A capture, ELF core, raw image or layout description.
        va: The virtual address, in hexadecimal.
        process: Whose address space (see `ptwalk info`).
        root: Physical address of the root table instead.
        access: What the access does.
        mode: Who makes the access (default: user below the middle of the address space, kernel above).
        json: One JSON object instead of text (docs/json.md).
    """
    number = common.address(va, "VA")
    listing = listed.opened(file, source, process=process, root=root, mode=mode)
    if listing is not None:
        return listed.walk(listing, number, json)
    machine = open_machine(file, source, root)
    regime, label = choose(machine, process, root)
    user = number >> 63 == 0 if mode is None else mode == "user"
    request = Access(AccessKind(access), user)
    steps, end = finish(regime.walk(machine.memory, number, request))
    reading = linux_reading(machine, regime, steps)
    if json:
        common.print_json(shape(machine, label, request, steps, end, reading))
    else:
        print(f"VA    {number:#018x}  {access}, {'user' if user else 'kernel'}  {label}  {machine.source}")
        for line in (*map(step_line, steps), *outcome_lines(end)):
            print(line)
        if reading:
            print(f"Linux {reading}")
    return 0 if isinstance(end, Translation) else 1


def linux_reading(machine: Machine, regime: Regime, steps: list[Step]) -> str:
    """How Linux reads the entry that ends the walk; nothing for a table or where no entry was read."""
    read = [step for step in steps if step.stage == 1 and step.level is not None and step.raw is not None]
    if not read:
        return ""
    last = read[-1]
    level = next(lv for tree in regime.trees for lv in tree.levels if lv.number == last.level)
    if last.raw is None or regime.classify(level, last.raw).type is EntryType.TABLE:
        return ""
    return linux_for(machine.arch, machine.kernel, regime).decode(level.number, last.raw).text()


def shape(
    machine: Machine, label: str, request: Access, steps: list[Step], end: Outcome, reading: str
) -> dict[str, Any]:
    """The stable JSON shape of a walk (docs/json.md)."""
    return {
        "file": machine.source,
        "arch": machine.arch,
        "space": label,
        "va": common.hexadecimal(end.va),
        "access": request.kind.value,
        "mode": "user" if request.user else "kernel",
        "steps": [_step(step) for step in steps],
        "translation": _translation(end) if isinstance(end, Translation) else None,
        "fault": _fault(end) if isinstance(end, Fault) else None,
        "linux": reading or None,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "level": step.level,
        "name": step.name,
        "linux_name": step.linux_name,
        "entry_pa": common.hexadecimal(step.pa),
        "entry": common.hexadecimal(step.raw),
        "kind": step.kind.name if step.kind else None,
        "fields": {k: hex(x) for k, x in step.kind.decode(step.raw).items()}
        if step.kind and step.raw is not None
        else {},
        "rights": step.rights.text(),
        "rule": step.rule,
        "note": step.note,
        "source": step.source,
    }


def _translation(end: Translation) -> dict[str, Any]:
    return {
        "pa": common.hexadecimal(end.pa),
        "level": end.level,
        "page_size": 1 << end.page_shift,
        "rights": end.rights.text(),
        "entry_pa": common.hexadecimal(end.entry_pa),
        "entry": common.hexadecimal(end.entry),
        "attributes": {k: x if isinstance(x, str | bool | int) else str(x) for k, x in end.attributes.items()},
    }


def _fault(end: Fault) -> dict[str, Any]:
    return {
        "name": end.name,
        "code": common.hexadecimal(end.code),
        "stage": end.stage,
        "level": end.level,
        "entry_pa": common.hexadecimal(end.entry_pa),
        "entry": common.hexadecimal(end.entry),
        "bit": end.bit,
        "rule": end.rule,
        "also": list(end.also),
        "syndrome": {k: hex(x) for k, x in end.syndrome.items()},
        "source": end.source,
    }

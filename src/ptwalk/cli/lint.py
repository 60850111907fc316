"""`ptwalk lint FILE` and `ptwalk diff FILE OTHER`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .. import queries
from ..arch.errors import InputError
from ..loaders.listing import load_listing
from ..mmu.progress import tracked
from ..mmu.spaces import leaves
from . import common, listed
from .source import DEFAULT, Source, choose, open_machine


def lint(
    file: Path,
    /,
    *,
    process: str | None = None,
    root: str | None = None,
    later: Path | None = None,
    later_checkpoint: int | None = None,
    json: bool = False,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """Entries that lead nowhere, memory writable and executable at once, broken contiguous sets, aliases with
    different memory types; between two captures of arm64, break-before-make. Exit 1 when anything is found.

    Args:
        file: A capture, ELF core, dump, raw image or layout description.
        process: Whose address space (see `ptwalk info`).
        root: Physical address of the root table instead.
        later: The same space at a later moment: which entries may not have been overwritten live (arm64).
        later_checkpoint: The checkpoint of LATER, where it is a capture; without --later one of FILE.
        json: One JSON object instead of text (docs/json.md).
    """
    listing = listed.opened(file, source, process=process, root=root, later=later, later_checkpoint=later_checkpoint)
    if listing is not None:
        return listed.lint(listing, json)
    machine = open_machine(file, source, root)
    regime, label = choose(machine, process, root)
    if later is not None or later_checkpoint is not None:
        then = open_machine(later or file, replace(source, checkpoint=later_checkpoint), root)
        now, label = choose(then, process, root)
        findings = queries.break_before_make((machine.memory, regime), (then.memory, now))
    else:
        findings = queries.lint(machine.memory, regime)
    if json:
        rows = [{"rule": f.rule, "va": hex(f.va), "text": f.text} for f in findings]
        common.print_json({"file": machine.source, "space": label, "findings": rows})
    else:
        for f in findings:
            print(f"{f.va:#018x}  {f.rule:<22} {f.text}")
        print(f"{len(findings)} findings in {label}")
    return 1 if findings else 0


def diff(
    file: Path,
    other: Path,
    /,
    *,
    process: str | None = None,
    other_process: str | None = None,
    checkpoint: int | None = None,
    other_checkpoint: int | None = None,
    json: bool = False,
) -> int:
    """What two address spaces map differently: two files, two processes, or two checkpoints; exit 1 on a difference.

    Args:
        file: The one side.
        other: The other side; may be the same file.
        process: The address space of the one side.
        other_process: The address space of the other side (default: of the same name).
        checkpoint: The checkpoint of the one side, where it is a capture.
        other_checkpoint: The checkpoint of the other side.
        json: One JSON object instead of text (docs/json.md).
    """
    listings = [load_listing(path) for path in (file, other)]
    if listings[0] is not None and listings[1] is not None:
        return listed.diff(listings[0], listings[1], json)
    if any(listings):
        raise InputError("a listing is compared with a listing only", file=file if listings[0] else other)
    sides = []
    for path, name, number in ((file, process, checkpoint), (other, other_process or process, other_checkpoint)):
        machine = open_machine(path, Source(checkpoint=number))
        regime, label = choose(machine, name, None)
        sides.append((machine, regime, label))
    (one, one_regime, one_label), (two, two_regime, two_label) = sides
    read = tracked(leaves(one.memory, one_regime), "leaves read", every=4096)
    changes = list(queries.diff(read, leaves(two.memory, two_regime)))
    if json:
        rows = [
            {
                "va_start": hex(c.va),
                "va_end": hex(c.va + c.size),
                "before": None if c.before is None else hex(c.before.pa + c.va - c.before.va),
                "after": None if c.after is None else hex(c.after.pa + c.va - c.after.va),
                "text": c.text(),
            }
            for c in changes
        ]
        common.print_json({"file": one.source, "other": two.source, "changes": rows})
    else:
        print(f"--- {one.source}  {one_label}\n+++ {two.source}  {two_label}")
        for change in changes:
            print(change.text())
        print(f"{len(changes)} ranges differ")
    return 1 if changes else 0

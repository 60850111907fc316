"""Whole address spaces, kernel half included, beside QEMU's `info tlb` of the same moment (x86-64)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from ..arch.errors import InputError, PtwalkError
from ..formats import qemu_tlb
from ..loaders.capture import Capture
from ..loaders.capture_machine import machine_of
from ..mmu.machine import Machine
from ..mmu.spaces import leaves
from .report import Disagreement

_FILE = re.compile(r"info_tlb_cpu(\d{1,4})\.txt", re.ASCII)
_LINE = re.compile(r"([0-9a-f]{16}): ([0-9a-f]{16}) ([-XGPDACTUW]{9})", re.ASCII)
_CR3 = re.compile(r"\bCR3=([0-9a-f]{1,16})\b", re.ASCII)
_ACCESSED_DIRTY = str.maketrans("AD", "--")
_CHECKPOINT = 5  # the format takes `info tlb` at this checkpoint


def compare_tlb(capture: Capture, counts: Counter[str], notes: list[str]) -> Iterator[Disagreement]:
    """Compare each CPU's listing with the tables under the CR3 of the CPU's last register sample."""
    files = sorted((m for m in map(_FILE.fullmatch, capture.archive.names) if m), key=lambda m: int(m[1]))
    if not files or capture.arch != "x86_64" or _CHECKPOINT not in capture.checkpoints:
        return
    checkpoint = capture.checkpoint(_CHECKPOINT)
    machine = machine_of(checkpoint)
    samples = checkpoint.json("regs.json").items() if checkpoint.has("regs.json") else []
    roots = [int(digits, 16) for digits in _CR3.findall(samples[-1].text())] if samples else []
    for match in files:
        cpu = int(match[1])
        said = _parse(bytes(capture.archive.read(match[0])), match[0])
        if cpu >= len(roots):
            notes.append(f"{match[0]}: no register sample of this CPU, so its root is unknown")
            continue
        found = _compare_roots(machine, cpu, roots[cpu], said, notes)
        if found is not None:
            counts.update(found[0])
            yield from found[1]


def _compare_roots(
    machine: Machine, cpu: int, sampled: int, said: dict[int, str], notes: list[str]
) -> tuple[Counter[str], list[Disagreement]] | None:
    """The comparison under the sampled root; under another process's where that one, and only that, agrees throughout.

    The listing was taken after the sample, so the CPU may have switched. None where the tables were not captured.
    """
    others = [root for space in machine.spaces.values() if (root := space.registers["CR3"]) != sampled]
    first: tuple[Counter[str], list[Disagreement]] | None = None
    for root in [sampled, *others]:
        counts: Counter[str] = Counter()
        try:
            found = counts, list(_compare(machine, cpu, root, said, counts))
        except PtwalkError as error:
            notes.append(f"CPU {cpu}: the tables under root {root:#x} were not captured: {error}")
            continue
        if not found[1]:
            if root != sampled:
                notes.append(f"CPU {cpu}: `info tlb` lists root {root:#x}, the sample before it had {sampled:#x}")
            return found
        if root == sampled:
            first = found
    return first


def _parse(data: bytes, name: str) -> dict[int, str]:
    said: dict[int, str] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(f"line {number} is none of `info tlb`", file=name, value=line[:60])
        said[int(match[1], 16)] = f"{match[2]} {match[3]}"
    return said


def _compare(
    machine: Machine, cpu: int, root: int, said: dict[int, str], counts: Counter[str]
) -> Iterator[Disagreement]:
    regime = machine.regime(root=root)
    machine.memory.read(regime.trees[0].root, 8)
    found = {int(line[:16], 16): line[18:] for line in qemu_tlb(leaves(machine.memory, regime))}
    for va in sorted(said.keys() | found.keys()):
        mine, theirs = found.get(va, "not mapped"), said.get(va, "not mapped")
        if mine == theirs:
            counts["mappings that agree"] += 1
        elif mine.translate(_ACCESSED_DIRTY) == theirs.translate(_ACCESSED_DIRTY):
            counts["accessed or dirty changed since the listing"] += 1
        else:
            yield Disagreement(_CHECKPOINT, f"CPU {cpu}", va, mine, f"info tlb: {theirs}")

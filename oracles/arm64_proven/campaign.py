"""The arm64 campaign: cases, QEMU's answers, the reference walker's, and a verdict for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from .. import tools
from ..guest import SharedGuest
from ..tally import Tally
from . import protocol as p
from .cases import cases
from .expect import ARCHITECTURE, EMULATOR, PROFILE, agrees, difference, expect, explain

GUEST = Path(__file__).parent / "guest"
PROGRAM, COMPILER = "qemu-system-aarch64", "aarch64-linux-gnu-gcc"
_CFLAGS = [
    "-march=armv8.2-a+nosimd", "-mgeneral-regs-only", "-mstrict-align", "-O2", "-ffreestanding", "-fno-pic", "-no-pie",
    "-fno-stack-protector", "-fno-builtin", "-nostdlib", "-static", "-Wall", "-Wextra",
    "-Wl,--build-id=none,--no-warn-rwx-segments",
]  # fmt: skip


class Qemu:
    """One boot of QEMU's `virt` machine at EL2; `run` answers any number of cases."""

    def __init__(self) -> None:
        tools.require(PROGRAM, COMPILER)
        self._guest = SharedGuest(PROGRAM, p.RAM_BYTES)
        elf = self._guest.folder / "guest.elf"
        tools.run([COMPILER, *_CFLAGS, "-T", GUEST / "link.ld", GUEST / "start.S", GUEST / "guest.c", "-o", elf])
        machine = ["-M", "virt,virtualization=on,gic-version=3,memory-backend=ram", "-cpu", "max", "-m", "1G"]
        self._guest.start([*machine, "-kernel", str(elf)], p.CONTROL + 8 - p.RAM_BASE)

    def run(self, batch: Sequence[p.Case]) -> list[p.Answer]:
        """The answers to at most `protocol.BATCH` cases."""
        self._guest.write(p.TESTS - p.RAM_BASE, b"".join(case.pack() for case in batch))
        control = b"".join(value.to_bytes(8, "little") for value in (len(batch), p.TESTS, p.RESULTS))
        self._guest.write(p.CONTROL + 16 - p.RAM_BASE, control)
        self._guest.run_batch(p.CONTROL - p.RAM_BASE)
        size = p.RESULT_BYTES
        found = self._guest.read(p.RESULTS - p.RAM_BASE, len(batch) * size)
        return [p.Answer.unpack(case, found[i * size : (i + 1) * size]) for i, case in enumerate(batch)]

    def close(self) -> None:
        """End the emulator."""
        self._guest.close()


def _safe(source: Iterator[p.Case]) -> Iterator[tuple[p.Case, p.Answer]]:
    """The cases that leave the harness alone, with the answer that the profile expects."""
    for case in source:
        expected = expect(case, EMULATOR, in_two=True)
        if expected is None:
            continue
        if expected.end == "went through":
            case.probe = expected.values[0] or 0
        yield case, expected


def judge(case: p.Case, expected: p.Answer, seen: p.Answer, tally: Tally) -> None:
    """Count one answer: the architecture's, a named deviation, or unexplained."""
    outcome = seen.end
    if seen.end == "PAR_EL1":
        outcome = "AT, fault" if (seen.values[0] or 0) & 1 else "AT, translated"
    elif seen.end == "abort":
        outcome = f"abort to EL{seen.values[0]}"
    by_the_book = expect(case, ARCHITECTURE)
    if by_the_book is not None and agrees(by_the_book, seen):
        tally.add(outcome, "as the architecture says")
    elif agrees(expected, seen):
        tally.add(outcome, f"{PROFILE}: {explain(case, seen)}")
    else:
        told: dict[str, object] = {"case": case.describe(), "seen": seen.describe(), "expected": expected.describe()}
        tally.fail(outcome, difference(expected, seen), told)


def run(count: int, seed: int, failures: Path) -> int:
    """Run `count` cases; the exit status."""
    tally = Tally(f"arm64 on {tools.version(PROGRAM, '--version')}, seed {seed}", count, failures)
    source = _safe(cases(Random(f"arm64/{seed}")))
    machine = Qemu()
    try:
        while tally.cases < count:
            batch = list(islice(source, min(count - tally.cases, p.BATCH)))
            answers = machine.run([case for case, _ in batch])
            for (case, expected), seen in zip(batch, answers, strict=True):
                judge(case, expected, seen, tally)
            tally.progress()
    finally:
        machine.close()
    return tally.report()

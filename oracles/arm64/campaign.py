"""The campaign: AT instructions and real accesses on QEMU 7.2 against the reference walker.

A batch is one guest run over one memory full of tables; access flags and dirty state that the guest's walker writes
stay for the cases after it, on both sides. Every PAR_EL1, ESR and FAR is compared, and the tables afterwards. The
profile `qemu-7.2` holds the known deviations; nothing else is masked.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptwalk.arch.arm64.faults import PAR_EL1, PAR_EL1_FAULT, FaultType
from ptwalk.mmu.arm64 import walk
from ptwalk.mmu.arm64.access import Operation
from ptwalk.mmu.arm64.context import Context
from ptwalk.mmu.arm64.features import PROFILES, QEMU_MAX
from ptwalk.mmu.arm64.syndrome import iss, par
from ptwalk.mmu.arm64.system import SystemState
from ptwalk.mmu.memory import PhysicalMemory

from ..tally import Tally
from .cases import access, case, image
from .emulator import BATCH, RAM, RAM_BYTES, TABLES, build, run_guest

EXPLAINED = "as the profile qemu-7.2 says"
NOT_COMPARED = "a table in device space or in the guest's own memory (not compared)"
PCI_WINDOWS = range(0x40_0000_0000, 0x100_0000_0000)  # reads there give all ones


def translate(one: dict[str, int], answer: dict[str, int], ram: PhysicalMemory) -> Context:
    """The case through the reference walker. QEMU with one processor makes an atomic of a load and then a store; where
    nothing answers the load, the store is never made."""
    system = SystemState({"SCR_EL3": 1, **one}, QEMU_MAX, PROFILES["qemu-7.2"])
    asked = access(one)
    parts = [asked]
    if asked.operation is Operation.ATOMIC:
        parts = [replace(asked, kind=op.traits.kind, operation=op) for op in (Operation.READ, Operation.WRITE)]
        parts = parts[:1] if answer["esr1"] & 0x7F == 0x10 else parts
    for part in parts:
        ctx = walk.make_context(system, ram, one["va"], part, update=True)
        for _ in walk.run(ctx):
            pass
        if ctx.detail.fault:
            break
    return ctx


def judge(one: dict[str, int], answer: dict[str, int], ram: PhysicalMemory) -> tuple[str, str]:
    """What the case ended in, and how the two sides differ ('' where they agree)."""
    ctx = translate(one, answer, ram)
    record = ctx.detail.fault
    kind = record.fault.title if record else "translated"
    if record and record.fault is FaultType.SYNC_EXTERNAL_ON_WALK:
        at = record.entry_pa or 0
        if at < TABLES or at in PCI_WINDOWS:
            return NOT_COMPARED, ""
        got = bool(answer["selftrap"]) if one["op"] < 0x100 else answer["esr1"] or answer["esr2"]
        return kind, "" if got else f"no external abort ({record.text()}): PAR_EL1 {answer['par']:#x}"
    if one["op"] < 0x100:
        want, got = par(ctx, ctx.detail), answer["par"]
        told = [(PAR_EL1_FAULT if value & 1 else PAR_EL1).flags(value) for value in (got, want)]
        where = f"{record.text()}, entry {record.entry or 0:#x}" if record else ""
        return kind, "" if got == want else f"PAR_EL1: QEMU {told[0]}, ptwalk {told[1]} {where}"
    difference = _judge_real(one, answer, iss(ctx, record)[0] if record else None)
    return kind, difference and f"{difference} ({record.text() if record else ctx.detail.s1_leaf})"


def _judge_real(one: dict[str, int], answer: dict[str, int], want: int | None) -> str:
    ec, code = answer["esr1"] >> 26 & 63, answer["esr1"] & 63
    fault = ec in (0x20, 0x21, 0x24, 0x25) and code != 0x10  # 0x10: translated, and nothing answered there
    if want is None:
        return "" if not fault else f"QEMU faults with ESR {answer['esr1']:#x}, ptwalk translates"
    mask = 0x3F | 1 << 6 | 1 << 7 | 1 << 8
    if not fault or (answer["esr1"] ^ want) & mask or answer["far1"] != one["va"]:
        return f"QEMU ESR {answer['esr1']:#x} FAR {answer['far1']:#x}, ptwalk ISS {want:#x}"
    return ""


def batch(guest: Path, seed: str, real: bool, n: int, tally: Tally) -> None:
    """One guest run of `n` cases, counted in `tally`."""
    rng = random.Random(seed)
    before = image(np.random.default_rng(rng.getrandbits(64)), real)
    cases = [case(rng, real) for _ in range(n)]
    answers, after = run_guest(guest, cases, before)
    ram, end = PhysicalMemory(), TABLES + len(before)
    ram.add_bytes(TABLES, before)
    ram.add_ram(end, RAM + RAM_BYTES - end)
    unknown_before = tally.outcomes[NOT_COMPARED]
    for i, (one, answer) in enumerate(zip(cases, answers, strict=True)):
        outcome, difference = judge(one, answer, ram)
        if difference:
            told: dict[str, object] = {name: hex(value) for name, value in one.items()}
            tally.fail(outcome, difference, {"seed": seed, "case": i} | told)
        else:
            tally.add(outcome, EXPLAINED)
    mine, theirs = (np.frombuffer(data[: len(before)], np.uint64) for data in (ram.read(TABLES, len(before)), after))
    unknown = tally.outcomes[NOT_COMPARED] - unknown_before  # QEMU walked on and may have set a flag in a table
    for at in np.flatnonzero(mine != theirs)[unknown:][:20].tolist():
        told = {"seed": seed, "pa": hex(TABLES + 8 * at), "qemu": hex(int(theirs[at])), "ptwalk": hex(int(mine[at]))}
        tally.fail("memory afterwards", "a table word differs", told)
    tally.progress()


def run(cases: int, seed: int, failures: Path) -> int:
    """Half of the cases by AT instructions, half by real accesses; 0 where all are explained."""
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        guest = build(Path(folder))
        for kind in ("at", "real"):
            tally, number = Tally(f"arm64 {kind} on QEMU", (cases + 1) // 2, failures), 0
            while tally.cases < tally.wanted:
                size = min(BATCH, tally.wanted - tally.cases)
                batch(guest, f"{kind}/{seed + number}", kind == "real", size, tally)
                number += 1
            status |= tally.report()
    return status

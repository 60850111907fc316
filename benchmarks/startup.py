"""Start-up: the CPU time of a process that runs one cached batch, against one that imports numba and nothing else."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

BATCH = """
from ptwalk.mmu.kernels import translate_many
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
memory = PhysicalMemory()
memory.add_ram(0, 1 << 20)
translate_many(memory, regime_from_registers("x86_64", {"CR3": 0x1000}, {}), [0x1000, 0x2000])
"""
WALK = """
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import outcome
memory = PhysicalMemory()
memory.add_ram(0, 1 << 20)
outcome(regime_from_registers("x86_64", {"CR3": 0x1000}, {}).walk(memory, 0x1000))
"""
PROGRAMS = {"python": "pass", "one walk": WALK, "import numba": "import numba", "one cached batch": BATCH}


def cpu(code: str) -> float:
    """User and system seconds of a process that runs `code`."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, code)
    return usage.ru_utime + usage.ru_stime


def run(rounds: int) -> dict[str, float]:
    """Print and return median CPU seconds, and the ratio that is held to 2.5."""
    cpu(BATCH)  # fills the cache
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, code in PROGRAMS.items():
            times[name].append(cpu(code))
    figures = {name: statistics.median(values) for name, values in times.items()}
    figures["ratio"] = statistics.median(
        batch / alone for batch, alone in zip(times["one cached batch"], times["import numba"], strict=True)
    )
    print("\nstart-up, CPU seconds: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures

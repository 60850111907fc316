"""What is imported when, and what the cache of compiled kernels notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ptwalk

PACKAGE = Path(ptwalk.__file__).parent

WALKS = """
import sys
import ptwalk.mmu.machine, ptwalk.mmu.spaces, ptwalk.mmu.walk
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import outcome
memory = PhysicalMemory()
memory.add_ram(0, 1 << 20)
outcome(regime_from_registers("x86_64", {"CR3": 0x1000}, {}).walk(memory, 0))
outcome(regime_from_registers("arm64", {"TCR_EL1": 0x10, "TTBR0_EL1": 0x1000}, {}).walk(memory, 0))
assert not {"numpy", "numba"} & set(sys.modules), "a walk imported numpy or numba"
"""

BATCH = """
from ptwalk.mmu.kernels import translate_many
from ptwalk.mmu.kernels import jit
from ptwalk.mmu.kernels.fast import forms
from ptwalk.mmu.kernels.plans import plan_for
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import Access
memory = PhysicalMemory()
memory.add_ram(0, 1 << 20)
for pa, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4000, 0x5007)):
    memory.write_uint(pa, entry)
regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
batch = translate_many(memory, regime, [0], form="single")
stats = forms(plan_for(regime, Access(), batch.faults, update=False)[0]).single.stats
print(hex(batch.pa[0]), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(code, cache, path=None):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_walks_import_neither_numpy_nor_numba(tmp_path):
    assert run(WALKS, tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the copy follows links as Linux does")
def test_a_second_process_compiles_nothing_and_a_changed_layout_compiles_anew(tmp_path):
    copy = tmp_path / "site" / "ptwalk"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "cli", "loaders", "rmap"))
    cache = tmp_path / "cache"
    assert run(BATCH, cache, copy.parent) == ["0x5000", "0", "1"]
    assert run(BATCH, cache, copy.parent) == ["0x5000", "1", "0"]
    entries = copy / "arch" / "x86_64" / "entries.py"
    entries.write_text(entries.read_text() + "\n# another layout\n")
    assert run(BATCH, cache, copy.parent) == ["0x5000", "0", "1"]

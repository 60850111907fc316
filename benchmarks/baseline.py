"""The C baseline, built with the system's compiler and called on numpy's buffers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ptwalk.arch.errors import PtwalkError
from ptwalk.mmu.kernels.views import flat_view

U64 = np.uint64
SOURCE = Path(__file__).with_name("baseline.c")
FLAGS = ["-O3", "-march=native", "-shared", "-fPIC", "-Wall"]


def build(folder: Path) -> ctypes.CDLL:
    """Compile baseline.c; PtwalkError where there is no compiler or it fails."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise PtwalkError("the benchmarks need a C compiler (cc or gcc), none is installed")
    library = folder / "baseline.so"
    done = subprocess.run([compiler, *FLAGS, "-o", str(library), str(SOURCE)], capture_output=True, text=True)
    if done.returncode:
        raise PtwalkError(f"the C baseline does not build: {done.stderr.strip()}")
    loaded = ctypes.CDLL(str(library))
    for name in ("leaves", "ranges", "reverse", "fork_small"):
        getattr(loaded, name).restype = ctypes.c_uint64
    return loaded


def pointer(array: Any) -> ctypes.c_void_p:
    """Where an array's data starts."""
    return ctypes.c_void_p(array.ctypes.data)


def plan_words(scene: Any, plan: Any) -> Any:
    """`struct plan` for a scene: the same masks, and the same info words, as the kernels' plan."""
    arrays = dict(zip(plan._fields, plan.keep, strict=False))
    last = arrays["lut"][-16:][:8]
    none = int(arrays["none_info"][-1]) & ~(0xFF << 16)
    bad = int(plan.table_mask) & ~0x81
    start = int(flat_view(scene.memory).delta)
    size = len(scene.memory.banks[0].data)
    head = [start, size, scene.root, bad, plan.need_table, plan.need_leaf, arrays["range_info"][0], none]
    return np.array([*head, *last], U64)

"""`ptwalk conform VECTORS.npz`."""

from __future__ import annotations

from pathlib import Path

from ..conform import conform as run_conform
from ..conform import write_vectors
from . import common


def conform(file: Path, /, *, profile: str | None = None, write: Path | None = None, json: bool = False) -> int:
    """Run a vector file through the reference walker and the kernel; exit 1 on any disagreement.

    Args:
        file: Vectors of either architecture (docs/vectors.md).
        profile: A named behaviour: architecture, intel, amd, qemu-7.2 ... (x86); arm, qemu-7.2, unicorn-2.1.4 (arm64).
        write: Do not compare: write the file's cases with the reference walker's answers to this new file.
        json: One JSON object instead of text (docs/json.md).
    """
    if write is not None:
        print(f"{write_vectors(file, write)} cases with the reference walker's answers in {write}")
        return 0
    report = run_conform(file, profile)
    if json:
        common.print_json(report.shape())
    else:
        print(report.text())
    return 0 if report.ok else 1

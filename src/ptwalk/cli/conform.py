"""`ptwalk conform VECTORS.npz`."""

from __future__ import annotations

from ..conform import conform as run_conform
from . import common


def conform(file: str, /, *, profile: str | None = None, json: bool = False) -> int:
    """Run a vector file through the reference walker and the kernel; exit 1 on any disagreement.

    Parameters
    ----------
    file: Vectors of either architecture (docs/vectors.md).
    profile: A named behaviour: architecture, intel, amd, qemu-7.2 ... (x86); arm, qemu-7.2, unicorn-2.1.4 (arm64).
    json: One JSON object instead of text (docs/json.md).
    """
    report = run_conform(file, profile)
    if json:
        common.print_json(report.shape())
    else:
        print(report.text())
    return 0 if report.ok else 1

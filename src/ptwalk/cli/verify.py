"""`ptwalk verify CAPTURE`."""

from __future__ import annotations

from pathlib import Path

from ..verify import verify as run_verify
from . import common


def verify(file: Path, /, *, json: bool = False) -> int:
    """Walk everything in a capture and compare it with what its kernel said; exit 1 on any disagreement.

    Args:
        file: A capture, as directory or .tar.xz.
        json: One JSON object instead of text (docs/json.md).
    """
    report = run_verify(file)
    if json:
        common.print_json(report.shape())
    else:
        print(report.text())
    return 0 if report.ok else 1

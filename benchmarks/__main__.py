"""`python -m benchmarks`: build the C baseline, run everything, print the tables; see `--help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import numba
import numpy as np

from . import growth, peers, startup
from .baseline import build
from .rows import FULL, SECTIONS, SHORT
from .timing import HEADER, Ratio


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes, two rounds: proves that it works, no gates")
    parser.add_argument("--only", nargs="*", choices=[*SECTIONS, "startup", "growth", "peers"], help="some sections")
    parser.add_argument("--rounds", type=int, help="rounds to time (the full run: 11)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    size = SHORT if options.short else FULL
    if options.rounds:
        size = type(size)(**{**vars(size), "rounds": options.rounds})
    wanted = options.only or [*SECTIONS, "startup", "peers"]
    rows: list[Ratio] = []
    report: dict[str, object] = {"host": host(), "rounds": size.rounds, "short": options.short}
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        print(HEADER)
        for name, section in SECTIONS.items():
            for row in section(library, size) if name in wanted else ():
                rows.append(row)
                print(row.line(), flush=True)
        if "startup" in wanted:
            report["startup"] = startup.run(size.rounds)
        if "growth" in wanted:
            report["growth"] = growth.run(Path(folder), options.short)
    if "peers" in wanted:
        report["peers"] = peers.run(options.short)
    report["rows"] = [row.record() for row in rows]
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def host() -> dict[str, object]:
    """Where the figures come from."""
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())

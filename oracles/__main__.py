"""Command line: `python -m oracles x86 --emulator qemu --cases 1000000 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .tools import OracleError

EMULATORS = {"x86": ("qemu", "bochs"), "arm64": ("qemu",), "arm64-proven": ("qemu",)}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked.

    >>> arguments(["x86", "--cases", "10"]).emulator
    'qemu'
    """
    parser = argparse.ArgumentParser("python -m oracles", description="Random translations against an emulator.")
    parser.add_argument("arch", choices=EMULATORS)
    parser.add_argument("--emulator", choices=("qemu", "bochs"), default="qemu")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn from the clock, and printed")
    parser.add_argument("--failures", type=Path, default=Path("oracle-failures.jsonl"), help="for unexplained cases")
    asked = parser.parse_args(words)
    if asked.emulator not in EMULATORS[asked.arch]:
        parser.error(f"{asked.arch} has no campaign on {asked.emulator}")
    if asked.cases < 1:
        parser.error("--cases wants at least 1")
    asked.seed = time.time_ns() & 0xFFFF_FFFF if asked.seed is None else asked.seed
    return asked


def main(words: list[str] | None = None) -> int:
    """0: all explained, 1: some are not, 2: the campaign could not run."""
    asked = arguments(words)
    print(f"seed {asked.seed}", file=sys.stderr)
    try:
        if asked.arch == "x86":
            from .x86 import campaign

            return campaign.run(asked.emulator, asked.cases, asked.seed, asked.failures)
        if asked.arch == "arm64-proven":
            from .arm64_proven import campaign as proven

            return proven.run(asked.cases, asked.seed, asked.failures)
        from .arm64 import campaign as arm64

        return arm64.run(asked.cases, asked.seed, asked.failures)
    except OracleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

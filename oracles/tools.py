"""The programs a campaign needs, and the compilation of its guest."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ptwalk.arch.errors import PtwalkError

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "bochs": "bochs and bochsbios",
    "gcc": "gcc",
    "ld": "binutils",
    "objcopy": "binutils",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
}


class OracleError(PtwalkError):
    """A campaign that cannot run: a missing program, a guest that does not start or stops answering."""


def missing(programs: Sequence[str]) -> list[str]:
    """Those of the programs that are not installed.

    >>> missing(["no-such-program"])
    ['no-such-program']
    """
    return [name for name in programs if shutil.which(name) is None]


def require(*programs: str) -> None:
    """OracleError naming the first program that is not installed, and Debian's package."""
    for name in missing(programs):
        raise OracleError(f"{name} is not installed (Debian: apt-get install {PACKAGES.get(name, name)})")


def run(command: Sequence[str | Path]) -> str:
    """Run a program to its end; what it printed. OracleError holds its last words where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip()[-400:]
        raise OracleError(f"{command[0]} failed with status {done.returncode}: {tail}")
    return done.stdout


def version(program: str, *arguments: str) -> str:
    """The first line with a digit that a program says of its version."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, input="")
    lines = (line.strip(" \t=") for line in (done.stdout + done.stderr).splitlines())
    return next((line for line in lines if any(c.isdigit() for c in line)), program)

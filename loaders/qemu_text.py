"""The text of QEMU's `info registers`, of one CPU or of all (`-a`): control registers of x86 CPUs.

The format is that of x86_cpu_dump_state (QEMU target/i386/cpu-dump.c). For arm64 QEMU prints no system registers there.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..arch.errors import InputError

MAX_FILE = 1 << 24
NAMES = ("CR0", "CR3", "CR4", "EFER")
_REGISTER = re.compile(r"\b(CR0|CR3|CR4|EFER|RFL)=([0-9a-f]{1,16})\b", re.ASCII)
_CPU = re.compile(r"^\s*CPU#\d+", re.MULTILINE | re.ASCII)
_MANUAL = {"RFL": "RFLAGS"}


def parse_info_registers(text: str) -> list[dict[str, int]]:
    """CR0, CR3, CR4, EFER and RFLAGS of each CPU in the text; a CPU that lacks one of the first four is left out.

    >>> text = "CPU#0\\nRIP=0 RFL=00000246\\nCR0=80050033 CR2=0 CR3=1000 CR4=20\\nEFER=0000000000000d01"
    >>> parse_info_registers(text)[0]["CR3"]
    4096
    """
    cpus = []
    for part in _CPU.split(text):
        found = {_MANUAL.get(name, name): int(digits, 16) for name, digits in _REGISTER.findall(part)}
        if all(name in found for name in NAMES):
            cpus.append(found)
    return cpus


def read_info_registers(path: Path) -> list[dict[str, int]]:
    """The same from a file; InputError where it holds no CPU's control registers."""
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise InputError(f"larger than {MAX_FILE:#x} bytes: not the text of info registers", file=path, value=size)
        cpus = parse_info_registers(path.read_bytes().decode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    if not cpus:
        raise InputError("no CPU's CR0, CR3, CR4 and EFER (QEMU's `info registers`)", file=path)
    return cpus

"""What a caller may say beside the path, and which format it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..arch.errors import InputError

_BELONGS = {
    "checkpoint": ("capture",),
    "arch": ("raw", "lime", "fdt", "memory map"),
    "base": ("raw",),
    "preset": ("raw", "lime", "elf", "kdump", "fdt", "memory map"),
    "registers_from": ("raw", "lime", "elf", "kdump"),
}
_WHERE = {
    "checkpoint": "captures",
    "arch": "raw images, LiME dumps and memory maps",
    "base": "raw images",
    "preset": "raw images, dumps and memory maps",
    "registers_from": "raw images and dumps",
}


@dataclass(frozen=True, slots=True)
class Options:
    """`load`'s options; None where the caller left one out."""

    checkpoint: int | None = None
    arch: str | None = None
    base: int | None = None
    root: int | None = None
    preset: str | None = None
    registers: Mapping[str, int] | None = None
    registers_from: str | Path | None = None

    def refuse_strangers(self, path: Path, found: str) -> None:
        """InputError where an option was given that means nothing for the format found."""
        for name, formats in _BELONGS.items():
            if getattr(self, name) is not None and found not in formats:
                text = f"this option belongs to {_WHERE[name]}, the file is of another kind ({found})"
                raise InputError(text, file=path, field=name)

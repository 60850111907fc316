"""The way in: bytes and text become a Machine. `load` looks at the content and picks the loader."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from .detect import detect
from .options import Options

# format: (module of this package, its function, what people call it)
FORMATS = {
    "capture": ("capture_machine", "load_capture", "a capture of a live kernel, directory or .tar.xz"),
    "elf": ("elf", "load_elf", "an ELF core"),
    "kdump": ("dumps", "load_kdump", "a compressed kernel dump"),
    "lime": ("dumps", "load_lime", "a LiME or AVML dump"),
    "fdt": ("fdt", "load_fdt", "a device tree"),
    "memory map": ("memory_map", "load_memory_map", "/proc/iomem or a boot log with its e820 table"),
    "layout": ("layout", "load_layout", "a layout description in TOML"),
    "raw": ("raw", "load_raw", "a raw image of physical memory"),
}
"""Every format that `load` knows, recognised by content but for the raw image, which needs `arch` or `preset`."""


def load(
    path: str | Path,
    *,
    checkpoint: int | None = None,
    arch: str | None = None,
    base: int | None = None,
    root: int | None = None,
    preset: str | None = None,
    registers: Mapping[str, int] | None = None,
    registers_from: str | Path | None = None,
) -> Machine:
    """The Machine that a file describes; InputError names file, offset and field of what cannot be right.

    `checkpoint` chooses one of a capture. `arch`, `base` (physical address of the first byte) and `preset` belong to
    raw images, `preset` also to dumps without registers. `root` (physical address of the root table) and `registers`
    go over what the file says, `registers_from` names a file with the text of QEMU's `info registers` (x86). No file is
    ever written to.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ram.bin"
    >>> _ = path.write_bytes(bytes(8192))
    >>> load(path, arch="x86_64", base=0x10_0000, root=0x10_1000).format
    'raw image'
    """
    path, options = Path(path), Options(checkpoint, arch, base, root, preset, registers, registers_from)
    found = detect(path) or ("raw" if arch or preset else None)
    if found is None:
        known = "; ".join(title for _, _, title in FORMATS.values())
        text = f"not in a format ptwalk knows ({known}): for a raw image name its architecture or a preset"
        raise InputError(text, file=path)
    options.refuse_strangers(path, found)
    module, function, _ = FORMATS[found]
    loader: Callable[[Path, Options], Machine] = getattr(importlib.import_module(f".{module}", __name__), function)
    return loader(path, options)

"""The shipped captures as plain dictionaries of files, and new captures written from such dictionaries."""

from __future__ import annotations

import io
import json
import lzma
import struct
import tarfile
from functools import lru_cache
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
CAPTURES = sorted((EXAMPLES / "captures").glob("*.tar.xz"))
LIVE = sorted((Path(__file__).parents[1] / "data" / "loaders").glob("live-*.tar.xz"))  # `ptwalk capture` in guests
SMALL = EXAMPLES / "captures" / "x86_64-deb6.1-nopti-swap.tar.xz"


@lru_cache(maxsize=2)
def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a capture by its name inside."""
    with tarfile.open(path) as tar:
        return {
            member.name.split("/", 1)[1]: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }


def only(files: dict[str, bytes], checkpoint: int) -> dict[str, bytes]:
    """The files without the other checkpoints."""
    return {name: data for name, data in files.items() if name[:2] != "cp" or name.startswith(f"cp{checkpoint}/")}


def tar_xz(files: dict[str, bytes], top: str = "capture") -> bytes:
    """A .tar.xz of the files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return lzma.compress(out.getvalue(), preset=0)


def write_directory(files: dict[str, bytes], path: Path) -> Path:
    """The files under a directory."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def pagemap(areas: list[tuple[int, list[int]]], page_size: int) -> tuple[bytes, bytes]:
    """pagemap.json and pagemap.bin for areas of (start, words)."""
    index, words = [], []
    for start, part in areas:
        index.append([f"{start:x}", f"{start + len(part) * page_size:x}", len(words), len(part)])
        words += part
    return json.dumps(index).encode(), struct.pack(f"<{len(words)}Q", *words)


def walk_members(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that a walk needs; large kpage and structpage arrays are left out."""
    return {name: data for name, data in files.items() if "kpage" not in name and "structpage" not in name}

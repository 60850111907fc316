"""Captures for the tests: opened once, and with single values changed."""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path

from ptwalk.loaders.capture import Capture
from ptwalk.loaders.checked import Node
from ptwalk.rmap_verify.adopted import Adopted, Kernel

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
P, N = "x86_64-7.3.4-P", "x86_64-7.3.4-N"
OLD_X86, OLD_ARM, OLD_SWAP = "x86_64-deb6.1-nopti", "arm64-deb6.1-4k", "x86_64-deb6.1-nopti-swap"
NEW_ARM = "arm64-deb7.3-4k-lpa2"
ALL = (P, N, OLD_X86, OLD_ARM, OLD_SWAP, NEW_ARM)


@cache
def opened(name: str) -> Capture:
    """The public capture of that name."""
    return Capture(CAPTURES / f"{name}.tar.xz")


@cache
def kernel(name: str) -> Kernel:
    """What decides how its kernel counts."""
    return Kernel.of(opened(name))


@cache
def adopted(name: str, checkpoint: int) -> Adopted:
    """A checkpoint, adopted; shared between tests, which must not change it."""
    return Adopted(opened(name).checkpoint(checkpoint), kernel(name))


class Changed:
    """An archive with other bytes in some files (loaders.archive.Archive)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._archive = opened(name).archive
        self.path = self._archive.path
        self._bytes: dict[str, bytearray] = {}

    @property
    def names(self) -> frozenset[str]:
        return self._archive.names

    def read(self, name: str) -> memoryview:
        if name in self._bytes:
            return memoryview(bytes(self._bytes[name]))
        return self._archive.read(name)

    def file(self, name: str) -> bytearray:
        """The file's bytes, to be changed in place."""
        return self._bytes.setdefault(name, bytearray(self._archive.read(name)))

    def flip(self, name: str, index: int, mask: int) -> None:
        """Flip bits of the 64-bit word at `index`."""
        data, at = self.file(name), index * 8
        data[at : at + 8] = (int.from_bytes(data[at : at + 8], "little") ^ mask).to_bytes(8, "little")

    def replace(self, name: str, old: str, new: str, after: str = "") -> None:
        """Replace the first `old` that follows `after` in a text file."""
        text = self.file(name).decode()
        start = text.index(after)
        at = text.index(old, start)
        self._bytes[name] = bytearray((text[:at] + new + text[at + len(old) :]).encode())

    def capture(self) -> Capture:
        """A capture that reads through this archive."""
        capture = copy(opened(self.name))
        capture.archive = self
        capture.meta = Node.parse(bytes(self.read("meta.json")), "meta.json")
        return capture

"""The files of a capture by name, from a directory or from a `.tar.xz` that is only ever opened in memory.

Limits: an archive decompresses to at most `MAX_ARCHIVE` bytes and holds at most `MAX_MEMBERS` members; a file of a
directory has at most `MAX_FILE` bytes. Member names with `..`, absolute names and links are refused.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import tarfile
from pathlib import Path
from typing import Protocol

from ..arch.errors import InputError

XZ_MAGIC = b"\xfd7zXZ\x00"
MAX_ARCHIVE = 1 << 29
MAX_FILE = 1 << 28
MAX_MEMBERS = 1 << 16
_LZMA_MEMORY = 1 << 28  # xz -9 needs 65 MiB to decompress
_TAR_BLOCK = 512


class Archive(Protocol):
    """Named files; names are relative to the capture, `cp5/roots.json`."""

    path: Path

    @property
    def names(self) -> frozenset[str]: ...

    def read(self, name: str) -> memoryview:
        """The bytes of a file; InputError where there is no such file."""
        ...


class DirectoryArchive:
    """A capture unpacked in a directory; files are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = frozenset(self._list())

    def _list(self) -> list[str]:
        names: list[str] = []
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            names += [Path(folder, file).relative_to(self.path).as_posix() for file in files]
            if len(names) > MAX_MEMBERS:
                raise InputError(f"more than {MAX_MEMBERS} files: not a capture", file=self.path)
        return names

    @property
    def names(self) -> frozenset[str]:
        return self._names

    def read(self, name: str) -> memoryview:
        if name not in self._names:
            raise InputError("the capture lacks this file", file=self.path, field=name)
        file = self.path / name
        try:
            state = file.lstat()
            if not stat.S_ISREG(state.st_mode):
                raise InputError("not a regular file", file=self.path, field=name)
            if state.st_size > MAX_FILE:
                raise InputError(f"larger than {MAX_FILE:#x} bytes", file=self.path, field=name, value=state.st_size)
            return memoryview(file.read_bytes())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=self.path, field=name) from error


class TarArchive:
    """A capture in a `.tar.xz`: decompressed once into memory, members are views of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = decompress_xz(path)
        self._data = memoryview(content)
        self._members: dict[str, tuple[int, int]] = {}
        try:
            self._index(io.BytesIO(content))
            self._strip_top()
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise InputError(f"the tar inside cannot be read: {error}", file=path) from error

    def _index(self, content: io.BytesIO) -> None:
        end = 0
        with tarfile.open(fileobj=content, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count == MAX_MEMBERS:
                    raise InputError(f"more than {MAX_MEMBERS} members: not a capture", file=self.path)
                self._add(member)
                size = member.size if member.isreg() else 0
                end = member.offset_data + -(-size // _TAR_BLOCK) * _TAR_BLOCK
        if bytes(self._data[end : end + 2 * _TAR_BLOCK]) != bytes(2 * _TAR_BLOCK):
            raise InputError("the tar inside ends without its two zero blocks", file=self.path, offset=end)

    def _add(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        parts = [part for part in member.name.split("/") if part != "."]
        if ".." in parts or "" in parts or not parts:
            raise InputError("not a member name of a capture", file=self.path, value=member.name)
        if not member.isreg() or member.sparse is not None:
            raise InputError("a member is no regular file", file=self.path, field=member.name)
        if member.offset_data + member.size > len(self._data) or member.size < 0:
            raise InputError("a member runs beyond the archive", file=self.path, field=member.name, value=member.size)
        name = "/".join(parts)
        if name in self._members:
            raise InputError("two members share this name", file=self.path, field=member.name)
        self._members[name] = member.offset_data, member.size

    def _strip_top(self) -> None:
        """Leave out the folder that holds everything, where there is one."""
        tops = {name.partition("/")[0] for name in self._members}
        if len(tops) == 1 and all("/" in name for name in self._members):
            self._members = {name.partition("/")[2]: place for name, place in self._members.items()}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def read(self, name: str) -> memoryview:
        try:
            start, size = self._members[name]
        except KeyError:
            raise InputError("the capture lacks this file", file=self.path, field=name) from None
        return self._data[start : start + size]


def decompress_xz(path: Path, limit: int = MAX_ARCHIVE) -> bytes:
    """The content of an .xz file; InputError where it is cut, damaged or larger than `limit` bytes."""
    if (size := path.stat().st_size) > MAX_FILE:
        raise InputError(f"larger than {MAX_FILE:#x} bytes: not a capture", file=path, value=size)
    raw = path.read_bytes()
    parts: list[bytes] = []
    total = 0
    while raw:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
        try:
            while not stream.eof:
                parts.append(stream.decompress(raw, limit + 1 - total))
                raw = b""
                total += len(parts[-1])
                if total > limit:
                    raise InputError(f"decompresses to more than {limit:#x} bytes", file=path)
                if stream.needs_input and not stream.eof:
                    raise InputError("the xz stream is cut short", file=path)
        except lzma.LZMAError as error:
            raise InputError(f"the xz stream is damaged: {error}", file=path) from error
        raw = stream.unused_data.lstrip(b"\0")  # padding between streams
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_archive(path: Path) -> Archive:
    """The files of the capture at `path`, a directory or a `.tar.xz`."""
    return DirectoryArchive(path) if path.is_dir() else TarArchive(path)

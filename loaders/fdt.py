"""Flattened device trees: what they say of memory (Devicetree Specification v0.4, chapter 5 and section 3.4).

Read here are `/memory*` nodes (their `reg`), `/reserved-memory` and the memory reservation block. A machine made from
them has that much empty RAM and the registers of a preset: a place to build and test page tables in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from ..mmu.memory import PhysicalMemory
from .options import Options
from .overrides import apply_overrides
from .presets import choose_preset

MAGIC = b"\xd0\x0d\xfe\xed"
MAX_FILE = 1 << 24
_HEADER = struct.Struct(">10I")
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
_LAST_COMPATIBLE = 17
_MAX_DEPTH = 64
_DEFAULT_CELLS = (2, 1)  # section 2.3.5


@dataclass(slots=True)
class Node:
    """A node: its path, its properties, and the cells that the `reg` of its children is counted in."""

    path: str
    parent: Node | None
    properties: dict[str, bytes] = field(default_factory=dict)

    def cells(self, file: object) -> tuple[int, int]:
        """#address-cells and #size-cells."""
        found = []
        for name, default in zip(("#address-cells", "#size-cells"), _DEFAULT_CELLS, strict=True):
            data = self.properties.get(name)
            if data is not None and (len(data) != 4 or data[3] > 2 or any(data[:3])):
                raise InputError("not 0, 1 or 2 cells", file=file, field=f"{self.path}{name}")
            found.append(default if data is None else data[3])
        return found[0], found[1]

    def reg(self, file: object) -> list[tuple[int, int]]:
        """The (address, size) pairs of `reg`."""
        cells = self.parent.cells(file) if self.parent is not None else _DEFAULT_CELLS
        data, width = self.properties.get("reg", b""), 4 * sum(cells)
        if width == 0 or len(data) % width:
            raise InputError("not whole pairs of address and size", file=file, field=f"{self.path}/reg")
        split = 4 * cells[0]
        rows = [data[i : i + width] for i in range(0, len(data), width)]
        return [(int.from_bytes(row[:split], "big"), int.from_bytes(row[split:], "big")) for row in rows]


@dataclass(slots=True)
class MemoryMap:
    """Ranges (start, size) of RAM, and of what is reserved with a name each."""

    memory: list[tuple[int, int]] = field(default_factory=list)
    reserved: list[tuple[str, int, int]] = field(default_factory=list)
    compatible: str = ""


def load_fdt(path: Path, options: Options) -> Machine:
    """A machine with the RAM of a device tree, and nothing in it."""
    found = read_fdt(path)
    chosen = choose_preset(options.arch, options.preset, path)
    memory = PhysicalMemory()
    for start, size in found.memory:
        try:
            memory.add_ram(start, size, "RAM")
        except InputError as error:
            raise InputError(error.problem, file=path, field="memory", value=start) from error
    if not memory.banks:
        raise InputError("the tree describes no memory", file=path)
    machine = Machine(
        arch=chosen.arch,
        memory=memory,
        registers=dict(chosen.registers),
        features=dict(chosen.features),
        source=str(path),
        format="device tree",
        notes=[f"empty RAM as the tree describes it; registers not given are those of the preset {chosen.name}"],
    )
    machine.notes += [f"reserved: {start:#x}-{start + size:#x} {name}" for name, start, size in found.reserved]
    apply_overrides(machine, options)
    return machine


def read_fdt(path: Path) -> MemoryMap:
    """What a flattened device tree says of memory; InputError names the offset of what cannot be right."""
    if (size := path.stat().st_size) > MAX_FILE:
        raise InputError(f"larger than {MAX_FILE:#x} bytes: not a device tree", file=path, value=size)
    data = path.read_bytes()
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise InputError("no device tree header", file=path, offset=0)
    _, total, struct_at, strings_at, reserve_at, _, compatible, _, strings_size, struct_size = _HEADER.unpack_from(data)
    if compatible > _LAST_COMPATIBLE:
        raise InputError("a format newer than version 17", file=path, field="last_comp_version", value=compatible)
    if total > len(data):
        raise InputError("the file ends before the tree does", file=path, field="totalsize", value=total)
    for name, start, length in (("struct", struct_at, struct_size), ("strings", strings_at, strings_size)):
        if (start % 4 and name == "struct") or start + length > total:
            raise InputError("the block does not lie inside the tree", file=path, field=f"off_dt_{name}", value=start)
    found = MemoryMap()
    found.reserved += [("reservation block", *pair) for pair in _reservations(data, reserve_at, total, path)]
    strings = data[strings_at : strings_at + strings_size]
    for node in _nodes(data, struct_at, struct_at + struct_size, strings, path):
        _collect(node, found, path)
    return found


def _collect(node: Node, found: MemoryMap, file: object) -> None:
    name = node.path.rpartition("/")[2]
    kind = node.properties.get("device_type", b"").rstrip(b"\0")
    status = node.properties.get("status", b"okay").rstrip(b"\0")
    depth = node.path.count("/")
    if node.path == "":
        found.compatible = node.properties.get("compatible", b"").split(b"\0")[0].decode("ascii", "replace")
    elif depth == 1 and status in (b"okay", b"ok") and (kind == b"memory" or name.split("@")[0] == "memory"):
        found.memory += [(start, size) for start, size in node.reg(file) if size]
    elif depth == 2 and node.path.startswith("/reserved-memory/") and "reg" in node.properties:
        found.reserved += [(name, start, size) for start, size in node.reg(file)]


def _reservations(data: bytes, at: int, total: int, path: Path) -> Iterator[tuple[int, int]]:
    while True:
        if at + 16 > total:
            raise InputError("the memory reservation block has no end", file=path, offset=at)
        start, size = struct.unpack_from(">QQ", data, at)
        if start == 0 and size == 0:
            return
        yield start, size
        at += 16


def _nodes(data: bytes, at: int, end: int, strings: bytes, path: Path) -> Iterator[Node]:
    """Every node, complete with its properties, children before the parent."""
    stack: list[Node] = []
    while True:
        (token,) = struct.unpack(">I", _take(data, at, end, 4, path))
        at += 4
        if token == _BEGIN_NODE:
            stop = data.find(b"\0", at, end)
            if stop < 0 or len(stack) == _MAX_DEPTH:
                raise InputError("a node's name has no end, or nodes are nested too deep", file=path, offset=at)
            name = data[at:stop].decode("ascii", "replace")
            stack.append(Node(f"{stack[-1].path}/{name}" if stack else name, stack[-1] if stack else None))
            at += -(-(stop + 1 - at) // 4) * 4
        elif token == _PROP and stack:
            size, name_at = struct.unpack(">II", _take(data, at, end, 8, path))
            name = strings[name_at : strings.find(b"\0", name_at)].decode("ascii", "replace")
            stack[-1].properties[name] = _take(data, at + 8, end, size, path)
            at += 8 + -(-size // 4) * 4
        elif token == _END_NODE and stack:
            yield stack.pop()
        elif token == _END and not stack:
            return
        elif token != _NOP:
            raise InputError("no token of a device tree", file=path, offset=at - 4, value=token)


def _take(data: bytes, at: int, end: int, size: int, path: Path) -> bytes:
    if at + size > end:
        raise InputError("the structure block ends too early", file=path, offset=at)
    return data[at : at + size]

"""ELF core files: QEMU's dump-guest-memory, /proc/vmcore, /proc/kcore and files in their manner.

Every PT_LOAD with a physical address becomes a bank, memory-mapped copy on write at whatever file offset it has.
Registers come from QEMU's notes; where there are none, from VMCOREINFO; where that is missing too, from the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine
from ..mmu.memory import PhysicalMemory
from .elf_notes import CoreNotes, Note, add_registers, parse_notes, read_notes
from .options import Options
from .overrides import apply_overrides
from .raw import map_file

MAGIC = b"\x7fELF"
_CLASS32, _CLASS64, _LITTLE, _ET_CORE = 1, 2, 1, 4
_MACHINES = {3: "x86_64", 62: "x86_64", 183: "arm64"}  # EM_386, EM_X86_64, EM_AARCH64
_EM_X86_64 = 62
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_MAX_SEGMENTS = 1 << 16
_MAX_NOTES = 1 << 26
_NO_ADDRESS = {_CLASS64: (1 << 64) - 1, _CLASS32: (1 << 32) - 1}  # fs/proc/kcore.c: no physical address of its own
_EHDR = {_CLASS64: struct.Struct("<HHIQQQIHHHHHH"), _CLASS32: struct.Struct("<HHIIIIIHHHHHH")}
_PHDR = {_CLASS64: struct.Struct("<IIQQQQQQ"), _CLASS32: struct.Struct("<IIIIIIII")}
_SH_INFO = {_CLASS64: 44, _CLASS32: 28}


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header; sizes in bytes."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int
    at: int


@dataclass(slots=True)
class ElfCore:
    """An ELF core file opened and checked: architecture, long mode, its segments and notes."""

    path: Path
    data: memoryview
    arch: str
    long_mode: bool
    segments: list[Segment]
    notes: CoreNotes
    no_address: int


def load_elf(path: Path, options: Options) -> Machine:
    """The Machine of an ELF core; InputError names offset and field of what cannot be right."""
    core = open_elf(path)
    machine = Machine(arch=core.arch, memory=PhysicalMemory(), registers={}, source=str(path), format="ELF core")
    machine.kernel = core.notes.vmcoreinfo.get("OSRELEASE")
    _add_banks(machine, core)
    add_registers(machine, core.notes, options.preset, long_mode=core.long_mode)
    apply_overrides(machine, options)
    return machine


def open_elf(path: Path) -> ElfCore:
    """Read and check the headers and notes of an ELF core."""
    data = map_file(path)
    if len(data) < 16 or bytes(data[:4]) != MAGIC:
        raise InputError("no ELF header", file=path, offset=0)
    kind, order = data[4], data[5]
    if kind not in _EHDR:
        raise InputError("neither ELF32 nor ELF64", file=path, offset=4, field="EI_CLASS", value=kind)
    if order != _LITTLE:
        raise InputError("not little-endian", file=path, offset=5, field="EI_DATA", value=order)
    if len(data) < 16 + _EHDR[kind].size:
        raise InputError("the file ends inside the ELF header", file=path, offset=16)
    e_type, machine, _, _, phoff, shoff, _, _, phentsize, phnum, *_ = _EHDR[kind].unpack_from(data, 16)
    if e_type != _ET_CORE:
        raise InputError("an ELF file, but not a core", file=path, offset=16, field="e_type", value=e_type)
    if machine not in _MACHINES:
        raise InputError("not a machine ptwalk knows", file=path, offset=18, field="e_machine", value=machine)
    if phentsize != _PHDR[kind].size:
        raise InputError("program headers of a wrong size", file=path, field="e_phentsize", value=phentsize)
    if phnum == _PN_XNUM:
        phnum = _extended_count(data, kind, shoff, path)
    segments = _segments(data, kind, phoff, phnum, path)
    notes = read_notes(_all_notes(data, segments, path), path)
    return ElfCore(path, data, _MACHINES[machine], machine == _EM_X86_64, segments, notes, _NO_ADDRESS[kind])


def _extended_count(data: memoryview, kind: int, shoff: int, path: Path) -> int:
    """The number of program headers where it does not fit e_phnum: sh_info of the first section header."""
    at = shoff + _SH_INFO[kind]
    if shoff == 0 or at + 4 > len(data):
        raise InputError("the section header with the count of segments is missing", file=path, offset=at)
    return int(struct.unpack_from("<I", data, at)[0])


def _segments(data: memoryview, kind: int, phoff: int, phnum: int, path: Path) -> list[Segment]:
    layout = _PHDR[kind]
    if phnum > _MAX_SEGMENTS:
        raise InputError(f"more than {_MAX_SEGMENTS} segments", file=path, field="e_phnum", value=phnum)
    if phoff + phnum * layout.size > len(data):
        raise InputError("the file ends inside the program headers", file=path, offset=phoff, field="e_phnum",
                         value=phnum)  # fmt: skip
    segments = []
    for i in range(phnum):
        at = phoff + i * layout.size
        fields = layout.unpack_from(data, at)
        if kind == _CLASS64:
            p_type, _, offset, vaddr, paddr, filesz, memsz, align = fields
        else:
            p_type, offset, vaddr, paddr, filesz, memsz, _, align = fields
        segment = Segment(p_type, offset, vaddr, paddr, filesz, memsz, align, at)
        if p_type in (_PT_LOAD, _PT_NOTE) and filesz and offset + filesz > len(data):
            raise InputError(f"the segment ends at {offset + filesz:#x}, the file at {len(data):#x}", file=path,
                             offset=at, field="p_filesz", value=filesz)  # fmt: skip
        segments.append(segment)
    return segments


def _all_notes(data: memoryview, segments: list[Segment], path: Path) -> Iterator[Note]:
    total = 0
    for segment in segments:
        if segment.type != _PT_NOTE:
            continue
        total += segment.filesz
        if total > _MAX_NOTES:
            raise InputError(f"more than {_MAX_NOTES:#x} bytes of notes", file=path, offset=segment.at)
        content = bytes(data[segment.offset : segment.offset + segment.filesz])
        yield from parse_notes(content, segment.offset, 8 if segment.align == 8 else 4, path)


def _add_banks(machine: Machine, core: ElfCore) -> None:
    """Banks for the PT_LOADs. Where two claim an address they have to agree; what the file lacks is no memory."""
    loads = [s for s in core.segments if s.type == _PT_LOAD]
    physical = sorted((s for s in loads if s.paddr != core.no_address), key=lambda s: s.paddr)
    if short := sum(s.memsz > s.filesz for s in physical):
        machine.notes.append(f"{short} segments are longer in memory than in the file: the rest is no memory here")
    if virtual := len(loads) - len(physical):
        machine.notes.append(f"{virtual} segments have no physical address and were passed over")
    budget = len(core.data)
    last: Segment | None = None  # of the segments so far, the one that reaches furthest
    for segment in physical:
        end, start = segment.paddr + segment.filesz, segment.paddr
        if last is not None and start < (covered := last.paddr + last.filesz):
            budget -= min(end, covered) - start
            if budget < 0:
                raise _disagree(core, segment, "the segments overlap too much to be physical memory")
            _compare(core, last, segment, start, min(end, covered))
            start = covered
        if start < end:
            _add_part(machine.memory, core, segment, start, end)
            last = segment
    if last is None:
        raise InputError("no segment holds physical memory", file=core.path)


def _disagree(core: ElfCore, segment: Segment, text: str) -> InputError:
    return InputError(text, file=core.path, offset=segment.at, field="p_paddr", value=segment.paddr)


def _compare(core: ElfCore, one: Segment, other: Segment, low: int, high: int) -> None:
    """Two segments that claim `low` to `high` must hold the same bytes there."""
    shift, step = other.offset - other.paddr - one.offset + one.paddr, 1 << 20
    for pa in range(low, high if shift else low, step):
        at, size = one.offset + pa - one.paddr, min(step, high - pa)
        if bytes(core.data[at : at + size]) != bytes(core.data[at + shift : at + shift + size]):
            raise _disagree(core, other, f"two segments disagree about physical memory {low:#x}-{high:#x}")


def _add_part(memory: PhysicalMemory, core: ElfCore, segment: Segment, low: int, high: int) -> None:
    first = segment.offset + low - segment.paddr
    try:
        memory.add_bytes(low, core.data[first : first + high - low], core.path.name)
    except InputError as error:
        raise InputError(error.problem, file=core.path, offset=segment.at, field="p_paddr", value=low) from error

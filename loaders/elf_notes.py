"""The notes of an ELF core: the CPUs' registers as QEMU's dump-guest-memory writes them, and VMCOREINFO.

Layouts: `QEMUCPUState` of QEMU's target/i386/arch_dump.c (version 1); NT_PRSTATUS from the kernel's struct
elf_prstatus. QEMU's note lacks EFER; arm64 cores hold no system registers at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..arch.errors import InputError
from ..mmu.machine import Machine, Space
from .presets import choose_preset
from .vmcoreinfo import kernel_registers, parse_vmcoreinfo

NT_PRSTATUS = 1
_HEADER = struct.Struct("<III")
_MAX_NOTES = 1 << 16
_QEMU_HEAD = struct.Struct("<II")
_QEMU_GENERAL = 18  # rax to r15, rip, rflags
_QEMU_SEGMENT = struct.Struct("<IIIIQ")  # selector, limit, flags, pad, base
_QEMU_SEGMENTS = 10  # cs ds es fs gs ss ldt tr gdt idt
_QEMU_CR = struct.Struct("<5Q")
_PR_REG = 112  # struct elf_prstatus of a 64-bit kernel: where the general registers start
# size of the note: (names of the general registers that are kept, their index)
_PRSTATUS = {
    336: {"RIP": 16, "RFLAGS": 18, "RSP": 19},  # x86: struct user_regs_struct
    392: {"SP": 31, "PC": 32, "PSTATE": 33},  # arm64: struct user_pt_regs
}
_QEMU_CR_AT = _QEMU_HEAD.size + 8 * _QEMU_GENERAL + _QEMU_SEGMENT.size * _QEMU_SEGMENTS


@dataclass(frozen=True, slots=True)
class Note:
    """One note: owner, type and content; `offset` is where it starts in the file."""

    owner: str
    type: int
    data: bytes
    offset: int


@dataclass(slots=True)
class CoreNotes:
    """What the notes tell: control registers of each CPU (x86), a few general ones, VMCOREINFO's lines."""

    control: list[dict[str, int]] = field(default_factory=list)
    general: list[dict[str, int]] = field(default_factory=list)
    vmcoreinfo: dict[str, str] = field(default_factory=dict)


def parse_notes(data: bytes, offset: int, align: int, file: object) -> Iterator[Note]:
    """The notes of a PT_NOTE segment that starts at `offset` in the file; InputError where one runs over its end."""
    at = 0
    for _ in range(_MAX_NOTES):
        if at == len(data):
            return
        if at + _HEADER.size > len(data):
            if not any(data[at:]):
                return  # padding
            raise InputError("a note header runs over the end of its segment", file=file, offset=offset + at)
        namesz, descsz, kind = _HEADER.unpack_from(data, at)
        start = at + _HEADER.size
        desc = start + -(-namesz // align) * align
        end = desc + descsz
        if end > len(data):
            raise InputError("a note runs over the end of its segment", file=file, offset=offset + at, field="n_descsz",
                             value=descsz)  # fmt: skip
        owner = data[start : start + namesz].split(b"\0")[0].decode("ascii", "replace")
        yield Note(owner, kind, data[desc:end], offset + at)
        at = min(len(data), desc + -(-descsz // align) * align)
    raise InputError(f"more than {_MAX_NOTES} notes", file=file, offset=offset + at)


def read_notes(notes: Iterator[Note], file: object) -> CoreNotes:
    """Sort the notes by what they tell; those nobody here understands are passed over."""
    found = CoreNotes()
    for note in notes:
        if note.owner == "QEMU":
            found.control.append(_qemu_state(note, file))
        elif note.owner == "CORE" and note.type == NT_PRSTATUS:
            found.general.append(_general(note))
        elif note.owner == "VMCOREINFO":
            found.vmcoreinfo |= parse_vmcoreinfo(note.data)
    return found


def _general(note: Note) -> dict[str, int]:
    """Program counter, stack pointer and flags of one CPU; nothing where the note has another kernel's size."""
    names = _PRSTATUS.get(len(note.data), {})
    return {name: struct.unpack_from("<Q", note.data, _PR_REG + 8 * i)[0] for name, i in names.items()}


def _qemu_state(note: Note, file: object) -> dict[str, int]:
    """CR0, CR3, CR4 and RFLAGS of one CPU."""
    data = note.data
    if len(data) < _QEMU_HEAD.size:
        raise InputError("QEMU's note is too short", file=file, offset=note.offset, field="n_descsz", value=len(data))
    version, size = _QEMU_HEAD.unpack_from(data)
    if version != 1:
        raise InputError("unknown version of QEMU's note", file=file, offset=note.offset, value=version)
    if size > len(data) or size < _QEMU_CR_AT + _QEMU_CR.size:
        raise InputError("QEMU's note has a wrong size", file=file, offset=note.offset, field="size", value=size)
    cr0, _, _, cr3, cr4 = _QEMU_CR.unpack_from(data, _QEMU_CR_AT)
    rflags = struct.unpack_from("<Q", data, _QEMU_HEAD.size + 8 * (_QEMU_GENERAL - 1))[0]
    return {"CR0": cr0, "CR3": cr3, "CR4": cr4, "RFLAGS": rflags}


def add_registers(machine: Machine, notes: CoreNotes, preset_name: str | None, *, long_mode: bool) -> None:
    """Registers from the preset that the caller names, from QEMU's notes or from VMCOREINFO, in this order."""
    if preset_name is not None:
        chosen = choose_preset(machine.arch, preset_name, machine.source)
        machine.registers, machine.features = dict(chosen.registers), dict(chosen.features)
        machine.notes.append(f"registers not given are those of the preset {preset_name}")
    elif notes.control:
        _add_control_registers(machine, notes, long_mode)
    elif notes.vmcoreinfo:
        found = kernel_registers(machine.arch, notes.vmcoreinfo)
        machine.registers = {**(notes.general[0] if notes.general else {}), **found.registers}
        machine.notes.append(found.note)
    else:
        machine.registers = dict(notes.general[0]) if notes.general else {}
        machine.notes.append("the file tells no control registers: name a preset and a root, or give the registers")


def _add_control_registers(machine: Machine, notes: CoreNotes, long_mode: bool) -> None:
    from ..arch.x86_64.registers import EFER

    efer = EFER.build(LME=1, LMA=1, NXE=1) if long_mode else EFER.build(NXE=1)
    machine.notes.append("QEMU's notes lack EFER: long mode as the header says it, NXE taken to be set")
    cpus = [cpu | {"EFER": efer} for cpu in notes.control]
    for cpu, general in zip(cpus, notes.general, strict=False):
        cpu |= general
    machine.registers = dict(cpus[0])
    for number, cpu in enumerate(cpus):
        machine.spaces[f"cpu{number}"] = Space(f"cpu{number}", cpu, note="as this CPU's registers stood")

"""Writes ELF core files from scratch for the tests: any segments at any file offset, ELF64 or ELF32, QEMU's notes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PT_LOAD, PT_NOTE = 1, 4
EM_386, EM_X86_64, EM_AARCH64 = 3, 62, 183


@dataclass
class Load:
    """One PT_LOAD; `gap` bytes of padding come before its content in the file."""

    paddr: int
    data: bytes
    gap: int = 0
    memsz: int | None = None
    vaddr: int = 0


@dataclass
class Core:
    loads: list[Load]
    notes: list[tuple[str, int, bytes]] = field(default_factory=list)
    machine: int = EM_X86_64
    bits: int = 64
    e_type: int = 4
    order: int = 1
    many: bool = False  # the count of segments in sh_info (PN_XNUM)

    def note_bytes(self) -> bytes:
        out = b""
        for owner, kind, data in self.notes:
            name = owner.encode() + b"\0"
            out += struct.pack("<III", len(name), len(data), kind) + pad(name) + pad(data)
        return out

    def write(self) -> bytes:
        wide = self.bits == 64
        ehsize, phsize, shsize = (64, 56, 64) if wide else (52, 32, 40)
        notes = self.note_bytes()
        count = len(self.loads) + bool(notes)
        shoff = ehsize if self.many else 0
        phoff = ehsize + (shsize if self.many else 0)
        at = phoff + count * phsize
        headers, body = b"", b""
        if notes:
            headers += self.header(PT_NOTE, at, 0, 0, len(notes), len(notes))
            body += notes
        for load in self.loads:
            body += b"\xa5" * load.gap
            memsz = len(load.data) if load.memsz is None else load.memsz
            headers += self.header(PT_LOAD, at + len(body), load.vaddr, load.paddr, len(load.data), memsz)
            body += load.data
        ident = b"\x7fELF" + bytes([2 if wide else 1, self.order, 1]) + bytes(9)
        phnum = 0xFFFF if self.many else count
        fields = (self.e_type, self.machine, 1, 0, phoff, shoff, 0, ehsize, phsize, phnum, shsize, int(self.many), 0)
        section = b""
        if self.many:
            form = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
            section = struct.pack(form, 0, 0, 0, 0, 0, 0, 0, count, 0, 0)
        return ident + struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", *fields) + section + headers + body

    def header(self, kind: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int) -> bytes:
        if self.bits == 64:
            return struct.pack("<IIQQQQQQ", kind, 0, offset, vaddr, paddr, filesz, memsz, 0)
        return struct.pack("<IIIIIIII", kind, offset, vaddr, paddr, filesz, memsz, 0, 0)


def pad(data: bytes, align: int = 4) -> bytes:
    return data + bytes(-len(data) % align)


def qemu_note(cr0: int, cr3: int, cr4: int, rflags: int = 2, version: int = 1) -> bytes:
    """QEMUX86CPUState as QEMU 7.2 writes it: 440 bytes."""
    general = [0] * 17 + [rflags]
    segments = b"".join(struct.pack("<IIIIQ", 0x10, 0xFFFFFFFF, 0x00AF9B00, 0, 0) for _ in range(10))
    tail = struct.pack("<5Q", cr0, 0, 0, cr3, cr4) + struct.pack("<Q", 0)
    return struct.pack("<II", version, 440) + struct.pack("<18Q", *general) + segments + tail

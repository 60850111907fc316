"""AMD's nested paging: every guest-physical address of a guest walk is walked again (AMD APM 2 15.25).

The nested tables have the host's long-mode format and every access to them is a user access. A guest-table access is a
read and a write at once (the guest's A and D bits live there), so it needs a writable nested page and sets its D bit.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from ...arch.x86_64.faults import NPF_EXITINFO1, PF_ERROR_CODE
from ..memory import Memory
from ..regime import EntryType
from ..walk import AccessKind, Fault, Step, Walk
from . import linear, rules
from .access import X86Access
from .modes import PAE
from .regime import X86Regime
from .rules import Path
from .walk import Reached, Used, X86Fault, absent, judge, reserved, step, translation

APM = "AMD APM volume 2 15.25"
_TABLE_ACCESS = X86Access(AccessKind.WRITE, user=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFault(Fault):
    """A nested page fault (#VMEXIT NPF): `syndrome` holds EXITINFO1 and EXITINFO2; `causes` as in `X86Fault`.

    `exitinfo1_alt` is a second value that implementations give: a fetch reported although the host's EFER.NXE is 0.
    """

    causes: tuple[str, ...] = ()
    exitinfo1_alt: int = 0


@dataclass(slots=True)
class Overlay:
    """Memory with the words written so far on top, so that a walk sees its own accessed and dirty bits."""

    memory: Memory
    old: dict[tuple[int, int], int] = field(default_factory=dict)
    new: dict[tuple[int, int], int] = field(default_factory=dict)

    def read(self, pa: int, size: int) -> int:
        if (pa, size) in self.new:
            return self.new[pa, size]
        return self.memory.read_uint(pa, size)

    def write(self, pa: int, size: int, value: int) -> None:
        self.old.setdefault((pa, size), self.memory.read_uint(pa, size))
        self.new[pa, size] = value

    def updates(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((pa, self.old[pa, size], value) for (pa, size), value in self.new.items())


@dataclass(frozen=True)
class NestedRegime:
    """A guest's regime over a host's nested one: CR3 and the guest's entries hold guest-physical addresses."""

    guest: X86Regime
    host: X86Regime

    def walk(self, memory: Memory, va: int, access: X86Access, *, update: bool = False) -> Walk:
        """Translate a guest's linear address to a system-physical one; stage 2 steps are the nested walks."""
        va, refusal = linear.check(self.guest, va, access)
        if refusal is not None:
            yield Step(rule=refusal.rule, note="no table is read", source=refusal.source)
            return refusal
        ram = Overlay(memory)
        used = Used()
        leaf = yield from self._descend(ram, va, access, used)
        if isinstance(leaf, Fault):
            return leaf
        if forbidden := judge(self.guest, va, access, leaf):
            return forbidden
        final = yield from self._nested(ram, va, leaf.target, access, table=False)
        if isinstance(final, Fault):
            return final
        size = self.guest.mode.entry_size
        for pa, _, new in used.updates(self.guest, write=access.is_write):
            ram.write(pa, size, ram.read(pa, size) | new)
        if update:
            for (pa, width), value in ram.new.items():
                memory.write_uint(pa, value, width)
        end = translation(self.guest, va, leaf, ram.updates())
        shift = min(leaf.level.shift, final.level.shift)
        return replace(end, pa=final.target, page_shift=shift, attributes={**end.attributes, "gpa": leaf.target})

    def _descend(self, ram: Overlay, va: int, access: X86Access, used: Used) -> Generator[Step, None, Reached | Fault]:
        guest = self.guest
        table, path, size = guest.root, Path(), guest.mode.entry_size
        for level in guest.levels:
            gpa = table + level.index(va) * size
            at = yield from self._nested(ram, va, gpa, _TABLE_ACCESS, table=True)
            if isinstance(at, Fault):
                return at
            raw = ram.read(at.target, size)
            entry = guest.classify(level, raw)
            if entry.type is EntryType.NONE:
                yield step(guest, level, at.target, raw, path, "present", "not present")
                return absent(guest, va, access, level, at.target, raw)
            if entry.type is EntryType.RESERVED:
                yield step(guest, level, at.target, raw, path, "reserved bits", "reserved bits set")
                return reserved(guest, va, access, level, at.target, raw)
            if not (guest.mode is PAE and level.number == 3):
                path = path.down(raw, entry.layout)
            used.entries.append((at.target, raw, level))
            leaf = entry.type is EntryType.LEAF
            yield step(guest, level, at.target, raw, path, "translation", "leaf" if leaf else "table")
            if leaf:
                offset = va & (1 << level.shift) - 1
                return Reached(level, at.target, raw, entry.layout, path, entry.pa | offset)
            table = entry.pa
        raise AssertionError("the last level of every mode holds leaves")

    def _nested(
        self, ram: Overlay, va: int, gpa: int, access: X86Access, *, table: bool
    ) -> Generator[Step, None, Reached | Fault]:
        """One nested walk of a guest-physical address, its A and D bits written."""
        host, asked, path, used = self.host, replace(access, user=True, implicit=False), Path(), Used()
        at = host.root
        for level in host.levels:
            pa = at + level.index(gpa) * 8
            raw = ram.read(pa, 8)
            entry = host.classify(level, raw)
            if entry.type in (EntryType.NONE, EntryType.RESERVED):
                yield replace(step(host, level, pa, raw, path, "nested", entry.type.value), stage=2)
                make = absent if entry.type is EntryType.NONE else reserved
                return self._fault(make(host, gpa, asked, level, pa, raw), va, gpa, asked, table=table)
            path = path.down(raw, entry.layout)
            used.entries.append((pa, raw, level))
            leaf = entry.type is EntryType.LEAF
            yield replace(step(host, level, pa, raw, path, "nested", "leaf" if leaf else "table"), stage=2)
            if leaf:
                break
            at = entry.pa
        found = Reached(level, pa, raw, entry.layout, path, entry.pa | gpa & (1 << level.shift) - 1)
        if forbidden := judge(host, gpa, asked, found):
            return self._fault(forbidden, va, gpa, asked, table=table)
        for pa, _, new in used.updates(host, write=access.is_write):
            ram.write(pa, 8, ram.read(pa, 8) | new)
        return found

    def _fault(self, fault: X86Fault, va: int, gpa: int, access: X86Access, *, table: bool) -> NestedFault:
        kind = NPF_EXITINFO1["TABLE" if table else "FINAL"].mask
        code = rules.error_code(self.host, access, present=fault.causes != ("P",), reserved=fault.causes == ("RSVD",))
        alternative = code | (PF_ERROR_CODE["ID"].mask if access.is_fetch else 0)
        return NestedFault(
            va=va, name="#VMEXIT(NPF)", code=code | kind, rule=fault.rule, stage=2, level=fault.level,
            entry_pa=fault.entry_pa, entry=fault.entry, bit=fault.bit, source=APM, also=fault.also,
            syndrome={"EXITINFO1": code | kind, "EXITINFO2": gpa}, causes=fault.causes, exitinfo1_alt=alternative | kind,
        )  # fmt: skip

"""AMD's nested paging: every guest-physical address of a guest walk is walked again (AMD APM 2 15.25).

The nested tables have the host's long-mode format and every access to them is a user access. A guest-table access is a
read and a write at once (the guest's A and D bits live there), so it needs a writable nested page and sets its D bit.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from ...arch.x86_64.entries import PAE_PDPTE
from ...arch.x86_64.faults import NPF_EXITINFO1, PF_ERROR_CODE
from ..memory import Memory
from ..regime import Entry, EntryType, Tree
from ..walk import Access, AccessKind, Fault, Level, Step, Walk
from . import rules
from .access import X86Access
from .modes import PAE
from .regime import X86Regime
from .rules import Path
from .walk import A, D, Reached, Request, X86Fault, bad_entry, judge, step, walk
from .words import Words

APM = "AMD APM volume 2 15.25"
_TABLE_ACCESS = X86Access(AccessKind.WRITE, user=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFault(Fault):
    """A nested page fault (#VMEXIT NPF): `syndrome` holds EXITINFO1 and EXITINFO2; `causes` as in `X86Fault`.

    `allowed` are the values of EXITINFO1 that implementations give, `code` first: a fetch may be reported although the
    host's EFER.NXE is 0. `level` is that of the nested entry to blame, `guest_level` that of the guest's leaf if the
    guest's walk had reached one.
    """

    guest_level: int | None = None
    causes: tuple[str, ...] = ()
    allowed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Npt:
    """The host's tables as second stage of `guest`; with `gmet` guest fetches at CPL 0 from nested user pages trap."""

    host: X86Regime
    guest: X86Regime
    gmet: bool = False
    asks_for_updates: bool = field(default=False, init=False)  # reading a guest entry asked for the write as well

    def translate(self, ram: Words, request: Request) -> Generator[Step, None, Reached | Fault]:
        """One nested walk of a guest-physical address, its A and D bits set."""
        access = replace(request.access, user=True, implicit=False, shadow_stack=False)
        access = _TABLE_ACCESS if request.table else access
        used: list[int] = []
        end = yield from self._descend(ram, request.gpa, access, used)
        if isinstance(end, Reached):
            end = judge(self.host, request.gpa, access, end) or self._guest_mode(request, end) or end
        if isinstance(end, X86Fault):
            return self._fault(end, request, access)
        for i, pa in enumerate(used):
            ram.change(pa, 8, A | (D if access.is_write and i == len(used) - 1 else 0))
        return end

    def attributes(self, leaf: Reached) -> dict[str, object]:
        """NPT's memory types combine with the guest's; nothing of them is told."""
        return {}

    def _descend(
        self, ram: Words, gpa: int, access: X86Access, used: list[int]
    ) -> Generator[Step, None, Reached | X86Fault]:
        host, table, path = self.host, self.host.root, Path()
        for level in host.levels:
            pa = table + level.index(gpa) * 8
            raw = ram.read(pa, 8)
            entry = host.classify(level, raw)
            if entry.type in (EntryType.NONE, EntryType.RESERVED):
                yield step(host, level, pa, raw, path, f"nested: {entry.type.value}", 2)
                return bad_entry(host, gpa, access, level, pa, raw, path)
            path = path.down(raw, entry.layout)
            used.append(pa)
            leaf = entry.type is EntryType.LEAF
            yield step(host, level, pa, raw, path, "leaf" if leaf else "table", 2)
            if leaf:
                return Reached(level, pa, raw, entry.layout, path, entry.pa | gpa & (1 << level.shift) - 1)
            table = entry.pa
        raise AssertionError("the last level of every mode holds leaves")

    def _guest_mode(self, request: Request, leaf: Reached) -> X86Fault | None:
        """Guest mode execute trap: a supervisor fetch of the guest from a nested user page (AMD APM 2 15.25.15)."""
        access = request.access
        if request.table or not self.gmet or not access.is_fetch or access.user or not leaf.path.is_user:
            return None
        code = rules.error_code(self.host, replace(access, user=True), present=True) | PF_ERROR_CODE["ID"].mask
        return X86Fault(
            va=request.gpa, name="#PF", code=code, rule="a guest supervisor fetch reaches a nested user page",
            level=leaf.level.number, entry_pa=leaf.pa, entry=leaf.raw, bit="US", source=f"{APM}.15", causes=("GMET",),
        )  # fmt: skip

    def _fault(self, fault: X86Fault, request: Request, access: X86Access) -> NestedFault:
        behaviour = self.guest.profile
        kind = NPF_EXITINFO1["TABLE" if request.table else "FINAL"].mask
        reserved = fault.causes == ("RSVD",)
        present = fault.causes != ("P",) and not (reserved and not behaviour.reserved_sets_p)
        told = replace(access, shadow_stack=request.access.shadow_stack and not request.table)
        code = rules.error_code(self.host, told, present=present, reserved=reserved) | kind
        code |= fault.code & PF_ERROR_CODE["ID"].mask
        allowed = [code]
        if access.is_fetch:
            allowed.append(code | PF_ERROR_CODE["ID"].mask)
            if behaviour.nested_fetch_always_told:
                allowed.reverse()
        gpa = request.gpa
        if request.table and behaviour.nested_pdpte_first and self.guest.mode is PAE:
            pdptes = self.guest.root
            gpa = pdptes if gpa & ~(4 * PAE_PDPTE.width // 8 - 1) == pdptes else gpa
        return NestedFault(
            va=request.va, name="#VMEXIT(NPF)", code=allowed[0], rule=fault.rule, stage=2, level=fault.level,
            entry_pa=fault.entry_pa, entry=fault.entry, bit=fault.bit, source=APM, also=fault.also,
            syndrome={"EXITINFO1": allowed[0], "EXITINFO2": gpa}, causes=fault.causes,
            allowed=tuple(dict.fromkeys(allowed)),
            guest_level=request.leaf.level.number if request.leaf else None,
        )  # fmt: skip


@dataclass(frozen=True)
class NestedRegime:
    """A guest's regime over a host's nested one: CR3 and the guest's entries hold guest-physical addresses.

    >>> host = X86Regime.from_registers({"CR3": 0x1000}, {})
    >>> NestedRegime(X86Regime.from_registers({"CR3": 0x5000}, {}), host).guest.mode.name
    '4-level paging'
    """

    guest: X86Regime
    host: X86Regime
    gmet: bool = False
    arch: str = field(default="x86_64", init=False)

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Translate a guest's linear address to a system-physical one; steps of stage 2 are the nested walks."""
        second = Npt(self.host, self.guest, self.gmet)
        return walk(self.guest, memory, va, X86Access.of(access), update=update, second=second)

    @property
    def trees(self) -> tuple[Tree, ...]:
        """None: no table of the guest lies where its address says."""
        return ()

    def classify(self, level: Level, raw: int) -> Entry:
        """What the guest's walk makes of an entry of its own."""
        return self.guest.classify(level, raw)

    def describe(self) -> Mapping[str, object]:
        """Guest and host."""
        return {"mode": "nested paging", "guest": self.guest.describe(), "host": self.host.describe()}

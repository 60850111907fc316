"""A session: one machine, the walk at hand, edits with undo, and the questions one asks. No user interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arch.errors import InputError, PtwalkError, RegisterError
from ..arch.layout import Layout
from ..arch.linux import Linux, linux_for
from ..loaders import load
from ..mmu.editor import EntryChange, Slot, TableEditor
from ..mmu.machine import ROOT_REGISTER, Machine
from ..mmu.regime import EntryType, Regime
from ..mmu.walk import Access, AccessKind
from .bits import whole
from .journal import Edit, EntryEdit, Journal, RegisterEdit, editor_of
from .questions import Listing, Sites, Word, decoded, listing, number, sites
from .registers import assumed, register_layouts, ttbr_layout
from .script import Program, Script
from .shown import Line
from .walked import Difference, Stepper, Walked, run
from .words import Entry, Processes, Registers, entry_named

if TYPE_CHECKING:
    from .accounts import Accounts, Counters

Address = int | str
"""A number, or hexadecimal digits as people write them."""


class Session:
    """A machine to walk, edit and ask.

    `on_edit` is called with the difference that an edit, an undo or a redo makes to the walk at hand.

    >>> import pathlib, ptwalk.shell
    >>> session = Session.open(ptwalk.shell.EXAMPLE)
    >>> hex(session.walk(0x40_1000).pa)
    '0x2001000'
    >>> session.entry("pte").P = 0
    >>> session.walked.end.name, session.undo().after.pa == 0x2001000
    ('#PF', True)
    """

    def __init__(self, machine: Machine, *, process: str | None = None, checkpoint: int | None = None) -> None:
        self.machine, self.checkpoint = machine, checkpoint
        self.on_edit: Callable[[Difference], None] = lambda difference: None
        self.journal = Journal()
        self.regs, self.processes = Registers(self), Processes(self)
        self.script = Script(machine)
        self._accounts: Accounts | PtwalkError | None = None
        self._stepper: Stepper | None = None
        self.space = _first_space(machine) if process is None else machine.space(process).name
        self.regime: Regime = machine.regime(self.space)

    @classmethod
    def open(cls, path: str | Path, *, process: str | None = None, **options: Any) -> Session:
        """Load a file (`options` are those of `ptwalk.loaders.load`); InputError where it cannot be used."""
        session = cls(load(path, **options), process=process, checkpoint=options.get("checkpoint"))
        session.script.options = options
        return session

    # ---- where we are

    def use(self, process: str | None = None) -> Processes:
        """Go to a process's address space; without a name to the machine's own registers."""
        regime = self.machine.regime(process)
        self.space, self.regime, self._stepper = process, regime, None
        return self.processes

    @property
    def walked(self) -> Walked:
        """The walk at hand; InputError before the first."""
        return self._current().walked

    def _current(self) -> Stepper:
        if self._stepper is None:
            raise InputError("no walk yet: step(va) or walk(va) makes one")
        return self._stepper

    def _linux(self, regime: Regime) -> Linux | None:
        """Linux's reading of entries; None where its tables do not have this form."""
        try:
            return linux_for(self.machine.arch, self.machine.kernel, regime)
        except InputError:
            return None

    @property
    def software(self) -> Layout | None:
        """Linux's names of software bits; None for machines that do not say that they run Linux."""
        linux = self._linux(self.regime) if self.machine.kernel else None
        return linux.software if linux is not None else None

    def linux_text(self, level: int, raw: int, regime: Regime | None = None) -> str:
        """How Linux reads an entry that points at no table; nothing for one that does."""
        regime = regime or self.regime
        linux = self._linux(regime)
        found = next((lv for tree in regime.trees for lv in tree.levels if lv.number == level), None)
        if linux is None or found is None or regime.classify(found, raw).type is EntryType.TABLE:
            return ""
        return linux.decode(level, raw).text()

    # ---- walks

    def step(self, va: Address, access: str = "read", user: bool | None = None) -> Stepper:
        """Walk a virtual address level by level: shows the first entry; fwd() and back() go on.

        `access` is read, write or execute; `user` defaults to user mode below the middle of the address space.
        """
        self._stepper = Stepper(self._walk(va, access, user), self.journal.originals)
        return self._stepper

    def walk(self, va: Address, access: str = "read", user: bool | None = None) -> Walked:
        """Walk a virtual address to its end, a line a level."""
        return self.step(va, access, user).last().walked

    def _walk(self, va: Address, access: str, user: bool | None) -> Walked:
        where = number(va, "va")
        if access not in {kind.value for kind in AccessKind}:
            raise InputError("an access is read, write or execute", field="access", value=access)
        wanted = Access(AccessKind(access), where >> 63 == 0 if user is None else user)
        self.script.walk(self.space, where, wanted)
        return self._walked(where, wanted)

    def _walked(self, va: int, access: Access, regime: Regime | None = None) -> Walked:
        regime = regime or self.regime
        steps, end = run(self.machine.memory, regime, va, access)
        title = f"process {self.space}" if self.space is not None else "the machine's own registers"
        read = [step for step in steps if step.stage == 1 and step.level is not None and step.raw is not None]
        linux = self.linux_text(read[-1].level or 0, read[-1].raw or 0, regime) if read else ""
        return Walked(va, access, title, regime, steps, end, linux, self.software)

    def fwd(self) -> Stepper:
        """One level further down the walk at hand."""
        return self._current().next()

    def back(self) -> Stepper:
        """One level back up the walk at hand."""
        return self._current().back()

    def entry(self, name: str) -> Entry:
        """An entry of the walk at hand by Linux's name of its level: pgd, p4d, pud, pmd or pte."""
        return entry_named(self, name)

    # ---- edits

    def editor(self) -> TableEditor:
        """An editor of the current tables."""
        return editor_of(self.machine, self.space)

    def write_entry(self, slot: Slot, raw: int, what: str) -> None:
        """Write an entry of the current space; BusError where no memory backs it."""
        self._accounting()
        old = self.editor().read(slot)
        self._edit(EntryEdit(what, self.space, slot, old, raw))

    def write_register(self, name: str, value: int, what: str) -> None:
        """Write a register; RegisterError, and no change, where the values cannot translate."""
        own = self.space is not None and name in self.machine.space(self.space).registers
        space = self.space if own else None
        held = self.machine.registers if space is None else self.machine.space(space).registers
        self._edit(RegisterEdit(what, space, name, held.get(name), value))

    def _edit(self, edit: Edit) -> None:
        found = self._told(edit.text(), edit, edit.done, edit.undone)
        self.journal.add(edit)
        self.script.edit(edit, edit.new)
        self.on_edit(found)

    def undo(self) -> Difference:
        """Take the latest edit back."""
        edit = self.journal.latest()
        found = self._told(f"undone: {edit.text()}", edit, edit.undone, edit.done)
        self.journal.taken_back.append(self.journal.done.pop())
        self.script.edit(edit, edit.old)
        return found

    def redo(self) -> Difference:
        """Make the edit again that was undone last."""
        edit = self.journal.undone()
        found = self._told(f"redone: {edit.text()}", edit, edit.done, edit.undone)
        self.journal.done.append(self.journal.taken_back.pop())
        self.script.edit(edit, edit.new)
        return found

    def _told(self, what: str, edit: Edit, change: Change, restore: Change) -> Difference:
        """Change something, walk again, and tell the difference; what cannot translate is restored and raised."""
        before = self._stepper.walked if self._stepper is not None else None
        changes = change(self.machine)
        try:
            self.regime = self.machine.regime(self.space)
        except RegisterError:
            restore(self.machine)
            raise
        also: list[Line] = [[(f"  break before make: {c.broke}", "yellow")] for c in changes if c.broke]
        also += self._counted(edit, changes)
        if self._stepper is not None and before is not None:
            self._stepper.go_again(self._walked(before.va, before.access))
        after = self._stepper.walked if self._stepper is not None else None
        return Difference((what,), before, after, tuple(also))

    def diff(self, edits: int = 1) -> Difference:
        """What the latest edits (one, unless said otherwise) change about the walk at hand."""
        done = self.journal.done
        if not 0 < edits <= len(done):
            raise InputError(f"there are {len(done)} edits to compare with", field="edits", value=edits)
        after, latest = self.walked, done[len(done) - edits :]
        for edit in reversed(latest):
            edit.undone(self.machine)
        try:
            regime = self.machine.regime(self.space)
            before = self._walked(after.va, after.access, regime)
        finally:
            for edit in latest:
                edit.done(self.machine)
        return Difference(tuple(edit.text() for edit in latest), before, after)

    def edits(self) -> Journal:
        """Every edit so far, with those that undo took back."""
        return self.journal

    # ---- registers

    @property
    def register_layouts(self) -> Mapping[str, Layout]:
        """The registers that a walk may read."""
        return register_layouts(self.machine.arch)

    def register_layout(self, name: str) -> Layout:
        """The layout of a register as the other registers have it (TTBRs of 52 bits)."""
        if name in ("TTBR0_EL1", "TTBR1_EL1"):
            return ttbr_layout(self.register_value("TCR_EL1"))
        return self.register_layouts[name]

    def given_registers(self) -> dict[str, int]:
        """What the machine and the current space say, the space's last."""
        own = self.machine.space(self.space).registers if self.space is not None else {}
        return {**self.machine.registers, **own}

    def register_given(self, name: str) -> bool:
        """Whether the machine or the current space says what the register holds."""
        return name in self.given_registers()

    def register_value(self, name: str) -> int:
        """What a walk takes the register to hold."""
        return self.given_registers().get(name, assumed(self.regime).get(name, 0))

    # ---- rmap

    def rmap(self, pa: Address | None = None) -> Counters:
        """The counters of the folio at `pa` (default: where the walk at hand leads) in Linux's accounting models."""
        accounts = self._accounting()
        if isinstance(accounts, PtwalkError):
            raise accounts
        where = self.walked.pa if pa is None else number(pa, "pa")
        if where is None:
            raise InputError("the walk at hand ends in a fault: rmap(pa) names a page", field="pa")
        self.script.rmap(where)
        return accounts.counters(where)

    def _accounting(self) -> Accounts | PtwalkError:
        """The accounting, or why there is none; made before the first edit, from the tables as they were loaded."""
        from .accounts import Accounts

        if self._accounts is None:
            try:
                self._accounts = Accounts.of(self.machine, self.checkpoint)
            except PtwalkError as error:
                self._accounts = error
        return self._accounts

    def _counted(self, edit: Edit, changes: Sequence[EntryChange]) -> list[Line]:
        if not isinstance(edit, EntryEdit) or not changes:
            return []
        accounts = self._accounting()
        if isinstance(accounts, PtwalkError):
            return [[(f"rmap  not counted: {accounts}", "dim")]]
        return accounts.observe(edit.space or "", changes)

    # ---- questions

    def maps(self, process: str | None = None, **wanted: str) -> Listing:
        """List an address space, equal neighbours merged.

        `wanted` keeps some pages alone, in the words of `ptwalk maps`: rights="rw", size="2M", pa="0-1000000", va=...
        """
        space = self.space if process is None else process
        self.script.maps(space)
        return listing(self.machine, space, **wanted)

    def ptov(self, pa: Address) -> Sites:
        """Every virtual address of every process that leads to a physical one."""
        found = number(pa, "pa")
        self.script.ptov(found)
        return sites(self.machine, found)

    def decode(self, value: int, kind: str) -> Word:
        """Every field of a value: `kind` is an entry or a register by the manual's name, PTE, PAGE_4K, CR4 ..."""
        return decoded(self.machine.arch, whole(value, None), kind)

    def python(self) -> Program:
        """The Python program that does what was done here, without the shell."""
        return self.script.program()


Change = Callable[[Machine], Sequence[EntryChange]]


def _first_space(machine: Machine) -> str | None:
    """The space that the machine's own root belongs to, else its own registers, else the first space."""
    if ROOT_REGISTER[machine.arch] not in machine.registers:
        return next(iter(machine.spaces), None)
    root = _root(machine, None)
    return next((name for name in machine.spaces if root is not None and _root(machine, name) == root), None)


def _root(machine: Machine, space: str | None) -> int | None:
    trees = machine.regime(space).trees
    return trees[0].root if trees else None

"""What a session did, as a Python program against the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..mmu.machine import Machine
from ..mmu.walk import Access
from .journal import Edit, EntryEdit
from .shown import Line, Shown

EXAMPLE = Path(__file__).parent / "example.toml"
"""The machine that `ptwalk repl` shows without a file."""
_IMPORTS = {
    "load(": "from ptwalk.loaders import load",
    "Slot(": "from ptwalk.mmu.editor import Reason, Slot, TableEditor",
    "FrameAllocator(": "from ptwalk.mmu.frames import FrameAllocator",
    "ptov(": "from ptwalk.mmu.kernels.reverse import ptov",
    "leaves(": "from ptwalk.mmu.spaces import leaves, ranges",
    "finish(": "from ptwalk.mmu.walk import Access, AccessKind, finish",
    "outcome_lines(": "from ptwalk.render import outcome_lines, step_line",
    "load(EXAMPLE": "from ptwalk.shell import EXAMPLE",
    "Accounts.": "from ptwalk.shell.accounts import Accounts",
}
_WRITE = '''

def write(space, pa, va, depth, raw):
    """Write one entry: `pa` is its address, `va` the lowest it translates, depth 0 a PTE, 1 a PMD ..."""
    regime = machine.regime(space)
    table = max(level.entries for tree in regime.trees for level in tree.levels) * 8
    editor = TableEditor(machine.memory, regime, FrameAllocator(0, 0, table), space=space or "")
'''
_WRITE_END = """    editor.write(Slot(pa, editor.level(va, depth), va), raw, Reason.PROTECT)


"""
_OBSERVE = '    editor.observers.append(lambda batch: accounts.observe(space or "", batch))\n'


@dataclass(frozen=True, repr=False)
class Program(Shown):
    """The text of a program; `text` is what to save."""

    text: str

    def lines(self) -> Iterator[Line]:
        for line in self.text.rstrip().splitlines():
            yield [(line, "dim" if line.lstrip().startswith("#") else "")]


@dataclass
class Script:
    """Collects what was done: each call adds the statements that do the same."""

    machine: Machine
    options: Mapping[str, Any] = field(default_factory=dict)
    _body: list[str] = field(default_factory=list)
    _walk: list[str] = field(default_factory=list)
    _edited: bool = False
    _counted: bool = False

    def walk(self, space: str | None, va: int, access: Access) -> None:
        """A walk, printed."""
        self._again()
        who = f"Access(AccessKind.{access.kind.name}, user={access.user})"
        self._walk = [
            f"steps, end = finish(machine.regime({space!r}).walk(machine.memory, {va:#x}, {who}))",
            'print(*map(step_line, steps), *outcome_lines(end), sep="\\n")',
        ]
        self._body += self._walk

    def edit(self, edit: Edit, value: int | None) -> None:
        """An entry or a register that now holds `value`."""
        self._edited = True
        if isinstance(edit, EntryEdit):
            slot = edit.slot
            depth = _depth(self.machine, edit)
            call = f"write({edit.space!r}, {slot.pa:#x}, {slot.va:#x}, {depth}, {value:#x})"
        else:
            holder = "machine" if edit.space is None else f"machine.space({edit.space!r})"
            register = f"{holder}.registers[{edit.name!r}]"
            call = f"del {register}" if value is None else f"{register} = {value:#x}"
        self._body.append(f"{call}  # {edit.what if value == edit.new else 'undo ' + edit.what}")

    def maps(self, space: str | None) -> None:
        """A listing, printed."""
        self._body += [f"for row in ranges(leaves(machine.memory, machine.regime({space!r}))):", "    print(row)"]

    def ptov(self, pa: int) -> None:
        """The reverse map, printed."""
        self._body.append(f'print(*ptov(machine, {pa:#x}), sep="\\n")')

    def rmap(self, pa: int) -> None:
        """A folio's counters, printed."""
        self._counted = True
        self._body.append(f"print(accounts.counters({pa:#x}))")

    def _again(self) -> None:
        """Walks that edits changed are made again."""
        if self._edited:
            self._body += self._walk
        self._edited = False

    def program(self) -> Program:
        """The program so far."""
        said = {name: str(x) if isinstance(x, Path) else x for name, x in self.options.items()}
        options = "".join(f", {name}={x!r}" for name, x in said.items())
        body = [*self._body, *(self._walk if self._edited else [])]
        source = "EXAMPLE" if self.machine.source == str(EXAMPLE) else repr(self.machine.source)
        head = f"machine = load({source}{options})\n"
        if self._counted:
            head += f"accounts = Accounts.of(machine, {self.options.get('checkpoint')!r})\n"
        if any(line.startswith("write(") for line in body):
            head += _WRITE + (_OBSERVE if self._counted else "") + _WRITE_END
        text = head + "\n".join(body)
        imports = [line for call, line in _IMPORTS.items() if call in text]
        return Program("\n".join(imports) + "\n\n" + text + "\n")


def _depth(machine: Machine, edit: EntryEdit) -> int:
    """How many levels the edited entry lies above the last one."""
    tree = next(tree for tree in machine.regime(edit.space).trees if edit.slot.va in tree)
    return next(depth for depth, level in enumerate(reversed(tree.levels)) if level.number == edit.slot.level.number)

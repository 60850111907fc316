"""The names that the shell's prompt knows: functions, objects, the entries of the walk at hand; and their help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

from ..arch.errors import InputError
from ..cli.info import paging, plain
from ..mmu.machine import Machine
from .bits import Bits
from .session import Session
from .shown import Line, Shown

LEVELS = ("pgd", "p4d", "pud", "pmd", "pte")
_CORE = {
    "x86_64": ("CR0", "CR3", "CR4", "EFER", "PKRU"),
    "arm64": ("SCTLR_EL1", "TCR_EL1", "TTBR0_EL1", "TTBR1_EL1", "MAIR_EL1"),
}
_FUNCTIONS = (
    *("step", "fwd", "back", "walk", "use", "maps", "ptov", "decode"),
    *("diff", "undo", "redo", "edits", "rmap", "python"),
)
_TASKS = {
    "look around": {
        "machine": "what is loaded",
        "processes": "the address spaces; * marks the one at hand",
        "use('A')": "go to another; use() goes to the machine's own registers",
        "maps(rights='wx')": "list an address space; filters are those of `ptwalk maps`",
        "ptov(0x1234000)": "every virtual address that leads to a physical one",
        "load('FILE')": "open another file",
    },
    "walk": {
        "step(0x401000, 'write')": "level by level: the first entry, bit by bit",
        "fwd(), back()": "one level down, one level up",
        "walk(0x401000)": "the whole walk, a line a level",
    },
    "entries and registers": {
        "pgd, p4d, pud, pmd, pte": "the entries of the walk at hand; pte.RW, pte.ADDR, pte.raw",
        "cr4, tcr_el1 ...": "the registers; cr4.SMEP; regs shows all and has the rare ones: regs.PKRU",
        "decode(0x67, 'PTE')": "any value bit by bit, by the manual's name",
    },
    "edit": {
        "pte.RW = 0, cr4.SMEP = 1": "the walk is made again, the difference shown, mappings counted",
        "diff(), diff(3)": "what the latest edits change about the walk at hand",
        "undo(), redo(), edits()": "take edits back, make them again, list them",
    },
    "account": {
        "rmap()": "rmap's counters of the folio that the walk leads to, in three models",
        "rmap(0x1234000)": "of the folio at a physical address",
    },
    "take away": {"python()": "the Python program that does what was done here"},
}


class MachineView(Shown):
    """What is loaded: `brief` leaves out the paging modes."""

    def __init__(self, machine: Machine, *, brief: bool = False) -> None:
        self.machine, self.brief = machine, brief

    def lines(self) -> Iterator[Line]:
        machine = self.machine
        kernel = f", Linux {machine.kernel}" if machine.kernel else ""
        yield [(machine.source, "bold"), f": {machine.format}, {machine.arch}{kernel}"]
        yield [f"address spaces: {', '.join(machine.spaces) or 'none named'}"]
        rows = {} if self.brief else paging(machine)
        for name, x in rows.items():
            yield [(f"  {name:<26}", "dim"), plain(x)]
        for note in machine.notes:
            yield [(f"note: {note}", "dim")]


class Help(Shown):
    """`help` shows the tasks, `help(x)` what is known of one thing."""

    def __call__(self, thing: object = None) -> Shown:
        """Help on everything, or on one thing."""
        return self if thing is None else Topic(thing)

    def lines(self) -> Iterator[Line]:
        for task, rows in _TASKS.items():
            yield [(task, "bold")]
            yield from ([f"  {call:<26} {text}"] for call, text in rows.items())
        yield [("help(step) or step? tells more; addresses are integers or text as printed: step('7fff_f000')", "dim")]


class Topic(Shown):
    """What is known of one thing: signature and text of a function, title and source of a word."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def lines(self) -> Iterator[Line]:
        thing = self.thing
        if isinstance(thing, Bits):
            yield [(thing.layout.name, "bold"), f"  {thing.layout.title}"]
            yield [f"fields: {', '.join(thing.layout)}; raw is the whole word"]
            yield [(f"source: {thing.layout.source}", "dim")]
            return
        if callable(thing):
            yield [(f"{getattr(thing, '__name__', type(thing).__name__)}{_signature(thing)}", "bold")]
        for line in (inspect.getdoc(thing) or "nothing is known of this").splitlines():
            yield [line]


def _signature(thing: Callable[..., Any]) -> str:
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):  # built-in functions
        return "(...)"
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def picture(x: object) -> object:
    """What the prompt shows for a value: a machine in brief, the help of a function that was not called."""
    if isinstance(x, Machine):
        return MachineView(x)
    return Topic(x) if isinstance(x, MethodType) else x


class Names(dict[str, Any]):
    """The prompt's namespace. Entries are looked up in the walk at hand; assigning to a word's name writes the word.

    >>> import ptwalk.shell
    >>> names = Names(ptwalk.shell.Session.open(ptwalk.shell.EXAMPLE))
    >>> exec("walk(0x60_1000); pte.RW = 1; x = pte.RW; pte = 0; y = pte.raw", names)
    >>> names["x"], names["y"]
    (1, 0)
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.bind(session)

    def bind(self, session: Session) -> None:
        """Show another session."""
        for name in self.pop("_bound", ()):
            self.pop(name, None)
        functions = {name: getattr(session, name) for name in _FUNCTIONS}
        given = {*_CORE[session.machine.arch], *session.given_registers()} & set(session.register_layouts)
        registers = {name.lower(): getattr(session.regs, name) for name in sorted(given)}
        objects = {"machine": session.machine, "processes": session.processes, "regs": session.regs, "session": session}
        bound = {**functions, **registers, **objects, "help": Help(), "load": self._load}
        self.update(bound, **dict.fromkeys(LEVELS), _bound=[*bound, *LEVELS])
        self._session = session

    def _load(self, path: str, **options: Any) -> MachineView:
        """Open another file; the options are those of ptwalk.loaders.load (checkpoint, arch, root ...)."""
        on_edit = self._session.on_edit
        self.bind(Session.open(path, **options))
        self._session.on_edit = on_edit
        return MachineView(self._session.machine, brief=True)

    def __getitem__(self, name: str) -> Any:
        return self._session.entry(name) if name in LEVELS else super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        held = self[name] if name in LEVELS else self.get(name)
        if isinstance(held, Bits):
            held.raw = value
        elif name in self["_bound"]:
            raise InputError("this name belongs to the shell; choose another for your own values", field=name)
        else:
            super().__setitem__(name, value)

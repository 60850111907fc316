"""The entries and registers of a session as words with fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..arch.errors import InputError
from ..arch.layout import Layout
from ..arch.linux import linux_level_names
from ..mmu.editor import Slot
from .bits import Bits, FieldError, diagram
from .shown import Line, Shown

if TYPE_CHECKING:
    from .session import Session


class Entry(Bits):
    """A page-table entry of the current walk; it stays at its address and reads memory each time."""

    def __init__(self, session: Session, name: str, slot: Slot, size: int) -> None:
        self._session, self._name, self._slot, self._size = session, name, slot, size

    @property
    def raw(self) -> int:  # type: ignore[override]  # set through __setattr__
        return self._session.machine.memory.read_uint(self._slot.pa, self._size)

    @property
    def layout(self) -> Layout:
        return self._session.regime.classify(self._slot.level, self.raw).layout

    @property
    def software(self) -> Layout | None:
        return self._session.software

    def assign(self, raw: int, what: str) -> None:
        self._session.write_entry(self._slot, raw, f"{self._name}.{what}")

    def lines(self) -> Iterator[Line]:
        raw, layout = self.raw, self.layout
        yield [(f"{self._name}  {self._slot.pa:#018x} => {raw:#018x}", "bold"), f"  {layout.name}, {layout.title}"]
        before = self._session.journal.originals().get(self._slot.pa)
        yield from diagram(layout, raw, before=before, software=self.software)
        if text := self._session.linux_text(self._slot.level.number, raw):
            yield [f"Linux  {text}"]


class Register(Bits):
    """A register of the current space or of the machine; it reads as it stands now."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name

    @property
    def raw(self) -> int:  # type: ignore[override]  # set through __setattr__
        return self._session.register_value(self._name)

    @property
    def layout(self) -> Layout:
        return self._session.register_layout(self._name)

    def assign(self, raw: int, what: str) -> None:
        self._session.write_register(self._name, raw, f"{self._name.lower()}.{what}")

    def lines(self) -> Iterator[Line]:
        raw, layout = self.raw, self.layout
        given = "" if self._session.register_given(self._name) else "  (not given: the value a walk takes)"
        yield [(f"{self._name}  {raw:#0{layout.width // 4 + 2}x}", "bold"), f"  {layout.title}{given}"]
        yield from diagram(layout, raw)


class Registers(Shown):
    """The registers by the manual's names, in either case: `regs.CR4`, `regs.cr4.SMEP = 1`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Register:
        if name.startswith("_"):
            raise AttributeError(name)
        known = name.upper() if name.upper() in self._session.register_layouts else name
        if known not in self._session.register_layouts:
            raise FieldError(f"no register of {self._session.machine.arch} that a walk reads", field=name)
        return Register(self._session, known)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            getattr(self, name).raw = value

    def __dir__(self) -> list[str]:
        return sorted(self._session.register_layouts)

    def lines(self) -> Iterator[Line]:
        for name in self._session.given_registers():
            register = Register(self._session, name)
            flags = register.layout.flags(register.raw)
            yield [(f"{name:<18}", "bold"), f"{register.raw:#0{register.layout.width // 4 + 2}x}  ", (flags, "dim")]


class Processes(Shown):
    """The address spaces of the machine by name; the current one is marked."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Iterator[str]:
        return iter(self._session.machine.spaces)

    def __len__(self) -> int:
        return len(self._session.machine.spaces)

    def __getitem__(self, name: str) -> Mapping[str, int]:
        return self._session.machine.space(name).registers

    def lines(self) -> Iterator[Line]:
        current = self._session.space
        if current is None:
            yield [("* the machine's own registers", "bold")]
        for name, space in self._session.machine.spaces.items():
            pid = f"pid {space.pid:<6}" if space.pid is not None else " " * 10
            registers = "  ".join(f"{register}={x:#018x}" for register, x in space.registers.items())
            line = f"{'*' if name == current else ' '} {name:<12} {pid} {registers}  {space.note}".rstrip()
            yield [(line, "bold" if name == current else "")]
        if not self._session.machine.spaces:
            yield ["no named address spaces"]


def entry_named(session: Session, name: str) -> Entry:
    """The entry of the current walk at a Linux level (`pgd` to `pte`; folded levels are the root's).

    InputError where there is no walk, or it ends above.
    """
    walked = session.walked
    for found in map(walked.slot, walked.steps):
        if found is not None:
            tree, slot = found
            above = tree.levels.index(slot.level)
            if name.upper() in linux_level_names(len(tree.levels) - 1 - above, len(tree.levels)):
                return Entry(session, name, slot, tree.entry_size)
    ended = walked.steps[-1].linux_name or walked.steps[-1].name if walked.steps else "registers"
    raise InputError(f"the walk of {walked.va:#018x} ends at its {ended}: there is no {name.upper()}", field=name)

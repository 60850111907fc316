"""A walk as it went, the cursor that steps through it, and the difference between two walks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from ..arch.errors import PtwalkError
from ..arch.layout import Layout
from ..mmu.editor import Slot
from ..mmu.memory import Memory
from ..mmu.regime import Regime, Tree
from ..mmu.walk import ALL_RIGHTS, Access, Fault, Outcome, Step, Translation
from ..render import outcome_lines, step_line
from .bits import diagram
from .shown import Line, Part, Shown


@dataclass(frozen=True, repr=False)
class Walked(Shown):
    """One walk to its end: the steps, and the translation, the fault, or the error that stopped it.

    `title` says where it started, `linux` how Linux reads the deciding entry, `software` names Linux's bits.
    """

    va: int
    access: Access
    title: str
    regime: Regime = field(compare=False)
    steps: tuple[Step, ...]
    end: Outcome | PtwalkError
    linux: str = ""
    software: Layout | None = None

    @property
    def pa(self) -> int | None:
        """The physical address, None where the walk ended in a fault."""
        return self.end.pa if isinstance(self.end, Translation) else None

    def slot(self, step: Step) -> tuple[Tree, Slot] | None:
        """The tree and the slot of the entry that a step read; None for a second stage and where none was read."""
        untagged = (self.va & (1 << 56) - 1) - (self.va >> 55 & 1) * (1 << 56) & (1 << 64) - 1  # arm64's top byte
        for tree in self.regime.trees:
            for va in (self.va, untagged):
                level = next((level for level in tree.levels if level.number == step.level), None)
                if va in tree and level is not None and step.stage == 1 and step.pa is not None:
                    return tree, Slot(step.pa, level, va >> level.shift << level.shift)
        return None

    def head(self) -> str:
        """What was asked."""
        who = "user" if self.access.user else "kernel"
        return f"VA    {self.va:#018x}  {self.access.kind.value}, {who}  {self.title}"

    def body(self) -> Iterator[str]:
        """A line a step, then the end."""
        yield from map(step_line, self.steps)
        yield from self.ending()

    def ending(self) -> Iterator[str]:
        """The physical address with its attributes, or the fault; then Linux's reading."""
        if isinstance(self.end, PtwalkError):
            yield f"ERROR {self.end}"
        else:
            yield from outcome_lines(self.end)
        if self.linux:
            yield f"Linux {self.linux}"

    def lines(self) -> Iterator[Line]:
        yield [(self.head(), "bold")]
        for line in self.body():
            yield [(line, _style(line))]


def _style(line: str) -> str:
    return {"PA": "bold green", "FAULT": "bold red", "ERROR": "bold red"}.get(line.split(" ", 1)[0], "")


def run(memory: Memory, regime: Regime, va: int, access: Access) -> tuple[tuple[Step, ...], Outcome | PtwalkError]:
    """Walk to the end; what cannot be read ends the walk as an error, the steps before it stay."""
    steps: list[Step] = []
    walk = regime.walk(memory, va, access)
    while True:
        try:
            steps.append(next(walk))
        except StopIteration as end:
            return tuple(steps), end.value
        except PtwalkError as error:
            return tuple(steps), error


@dataclass(repr=False, eq=False)
class Stepper(Shown):
    """A cursor on a walk: one level at a time, and the end after the last.

    `originals` tells what edited entries held before, by address.
    """

    walked: Walked
    originals: Callable[[], Mapping[int, int]] = dict
    at: int = 0

    def next(self) -> Stepper:
        """One level further; at the end it stays there."""
        self.at = min(self.at + 1, len(self.walked.steps))
        return self

    def back(self) -> Stepper:
        """One level back; at the first it stays there."""
        self.at = max(self.at - 1, 0)
        return self

    def last(self) -> Stepper:
        """To the end of the walk."""
        self.at = len(self.walked.steps)
        return self

    def go_again(self, walked: Walked) -> None:
        """Stay at the same level of a walk that was made again."""
        self.walked, self.at = walked, min(self.at, len(walked.steps))

    @property
    def step(self) -> Step | None:
        """The step shown; None at the end of the walk."""
        return self.walked.steps[self.at] if self.at < len(self.walked.steps) else None

    def lines(self) -> Iterator[Line]:
        yield [(self.walked.head(), "bold")]
        yield self._trail()
        step = self.step
        if step is None:
            yield from ([(line, _style(line))] for line in self.walked.ending())
            return
        yield from self._entry(step)
        before = self.walked.steps[self.at - 1].rights if self.at else ALL_RIGHTS
        lost = before & ~step.rights
        yield ["rights  ", (step.rights.text(), "bold"), (f"  (takes away {_letters(lost)})" if lost else "", "yellow")]
        yield [f"rule    {step.rule}: ", (step.note, "bold"), f"  ({step.source})" if step.source else ""]

    def _trail(self) -> Line:
        """`PGD > [PUD] > PMD > PTE > end`, the place in brackets."""
        line: list[Part] = ["path  "]
        for i, step in enumerate(self.walked.steps):
            name = step.linux_name or step.name or step.rule
            name = f"S{step.stage} {name}" if step.stage != 1 else name
            line += [(f"[{name}]", "bold reverse") if i == self.at else name, " > "]
        name = "fault" if isinstance(self.walked.end, Fault) else "end"
        return [*line, (f"[{name}]", "bold reverse") if self.step is None else name]

    def _entry(self, step: Step) -> Iterator[Line]:
        if step.pa is None or step.raw is None:
            return
        yield [f"{step.name}/{step.linux_name}" if step.linux_name else step.name, f"  {_place(self.walked, step)}"]
        width = step.kind.width // 4 + 2 if step.kind else 18
        kind = f"  {step.kind.name}, {step.kind.title}".rstrip(", ") if step.kind else ""
        yield [f"entry {step.pa:#018x} => ", (f"{step.raw:#0{width}x}", "bold"), kind]
        if step.kind is not None:
            decides = step.stage == 1 and step is self.walked.steps[-1] and step.raw & 1
            software = self.walked.software if decides else None
            yield from diagram(step.kind, step.raw, before=self.originals().get(step.pa), software=software)


def _letters(rights: int) -> str:
    who = {"kernel": rights & 7, "user": rights >> 3}
    words = ("".join(c for i, c in enumerate("rwx") if bits >> i & 1) for bits in who.values())
    return ", ".join(f"{name} {letters}" for name, letters in zip(who, words, strict=True) if letters)


def _place(walked: Walked, step: Step) -> str:
    """Which entry of which table: the index and the address bits it comes from."""
    found = walked.slot(step)
    if found is None or step.kind is None:
        return ""
    tree, slot = found
    level, index = slot.level, slot.level.index(slot.va)
    root = f" ({tree.register})" if level is tree.levels[0] else ""
    bits = f"va[{level.shift + level.index_bits - 1}:{level.shift}]"
    return f"index {index:#x} = {bits} of the table at {slot.pa - index * (step.kind.width // 8):#018x}{root}"


@dataclass(frozen=True, repr=False)
class Difference(Shown):
    """What edits change about a walk (None where there was none): `what` names the edits, `also` what else moved."""

    what: tuple[str, ...]
    before: Walked | None
    after: Walked | None
    also: tuple[Line, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the walk goes another way."""
        return self.before is not None and self.after is not None and [*self.before.body()] != [*self.after.body()]

    def lines(self) -> Iterator[Line]:
        yield from ([(text, "bold")] for text in self.what)
        if self.before is not None and self.after is not None:
            if self.changed:
                yield [f"  {self.after.head()}"]
                yield from _compared(list(self.before.body()), list(self.after.body()))
            else:
                yield [(f"  the walk of {self.after.va:#018x} stays as it was", "dim")]
        yield from self.also


def _compared(before: list[str], after: list[str]) -> Iterator[Line]:
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = before[i:j], after[k:m]
        if tag == "equal":
            yield from ([(f"  {line}", "dim")] for line in gone)
        elif len(gone) == len(come):
            for old, new in zip(gone, come, strict=True):
                yield [(f"- {old}", "red")]
                yield [(f"+ {new}", "green")]
        else:
            yield from ([(f"- {line}", "red")] for line in gone)
            yield from ([(f"+ {line}", "green")] for line in come)

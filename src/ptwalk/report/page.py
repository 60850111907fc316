"""The page: what the machine is, chosen walks bit by bit, its address spaces, and lint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from .. import __version__
from ..cli.info import paging, plain
from ..mmu.machine import Machine
from ..mmu.spaces import leaves
from ..mmu.walk import Access, AccessKind, Fault, Outcome, Step, Translation, finish
from ..queries import lint
from ..render import outcome_lines
from .space import LEGEND, draw


class Wanted(NamedTuple):
    """A walk to draw: the space (None for the machine's own registers), the address, and the access."""

    space: str | None
    va: int
    access: Access


def page(machine: Machine, spaces: Sequence[str], walks: Sequence[Wanted]) -> str:
    """The whole page as one string of HTML that refers to nothing outside itself."""
    title = f"{machine.source}: page tables"
    css = files("ptwalk.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head><body>',
        f"<h1>{escape(machine.source)}</h1>",
        *_machine(machine),
        *(f"{line}" for wanted in walks for line in _walk(machine, wanted)),
        *_spaces(machine, spaces),
        f'<p class="dim">ptwalk {__version__}</p></body></html>',
    ]
    return "\n".join(parts)


def _machine(machine: Machine) -> Iterator[str]:
    kernel = f", Linux {machine.kernel}" if machine.kernel else ""
    yield f"<p>{escape(machine.format)}, {machine.arch}{escape(kernel)}</p><table>"
    for name, value in paging(machine).items():
        yield f"<tr><th>{escape(name)}</th><td>{escape(plain(value))}</td></tr>"
    yield "</table>"
    for note in machine.notes:
        yield f"<p class='dim'>{escape(note)}</p>"


def _walk(machine: Machine, wanted: Wanted) -> Iterator[str]:
    who = "user" if wanted.access.user else "kernel"
    label = wanted.space or "the machine's own registers"
    yield f"<h2>Walk of <code>{wanted.va:#018x}</code>, {wanted.access.kind.value}, {who}, {escape(label)}</h2>"
    steps, end = finish(machine.regime(wanted.space).walk(machine.memory, wanted.va, wanted.access))
    for step in steps:
        yield from _step(step, end)
    tone = "mono fault" if isinstance(end, Fault) else "mono"
    yield "".join(f"<p class='{tone}'>{escape(line)}</p>" for line in outcome_lines(end))


def _step(step: Step, end: Outcome) -> Iterator[str]:
    if step.pa is None or step.raw is None or step.kind is None:
        yield f"<p class='mono'>{escape(step.rule)}: {escape(step.note)}</p>"
        return
    names = f"{step.name} / {step.linux_name}" if step.linux_name else step.name
    yield (
        f"<p class='mono'><b>{escape(names)}</b> {step.pa:#018x} &rarr; {step.raw:#018x} "
        f"<span class='dim'>{escape(step.note)}; {escape(step.rights.text())}</span></p>"
    )
    blamed = set(end.bit.split()) if isinstance(end, Fault) and end.entry_pa == step.pa else set()
    yield "<div class='bits'>"
    for field in reversed(list(step.kind.values())):
        value = field.get(step.raw)
        shown = f"{value:#x}" if field.width > 1 else str(value)
        marks = "field" + (" set" if value else "") + (" blame" if field.name in blamed else "")
        place = f"{field.shift + field.width - 1}:{field.shift}" if field.width > 1 else str(field.shift)
        yield f"<span class='{marks}' title='bits {place}'><small>{escape(field.name)}</small>{shown}</span>"
    yield "</div>"


def _spaces(machine: Machine, names: Sequence[str]) -> Iterator[str]:
    legend = " ".join(f"<span class='{name}'>&#9632;</span> {escape(text)}" for name, text in LEGEND)
    for name in names:
        regime = machine.regime(name)
        found = list(leaves(machine.memory, regime))
        yield f"<h2>Address space {escape(name)}</h2><p>{legend}</p>"
        yield from draw(regime, found)
        findings = lint(machine.memory, regime)
        yield f"<h3>Lint: {len(findings)} findings</h3><div class='scroll'><table>"
        for f in findings:
            yield f"<tr><td>{f.va:#018x}</td><td>{escape(f.rule)}</td><td>{escape(f.text)}</td></tr>"
        yield "</table></div>"


def default_walks(machine: Machine, space: str) -> list[Wanted]:
    """The first page that the user can reach, so that the page shows a walk where none was asked for."""
    regime = machine.regime(space)
    for leaf in leaves(machine.memory, regime):
        access = Access(AccessKind.READ, user=True)
        end = finish(regime.walk(machine.memory, leaf.va, access))[1]
        if isinstance(end, Translation):
            return [Wanted(space, leaf.va, access)]
    return []

"""The page of a machine: what it is, chosen walks, its address spaces, its folios, and lint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..arch.errors import InputError
from ..cli.info import paging, plain
from ..mmu.machine import Machine
from ..mmu.progress import tracked
from ..mmu.spaces import leaves
from ..mmu.walk import Translation, finish
from ..queries import lint
from ..shell.accounts import Accounts
from .document import document
from .folios import draw_folios
from .space import CONTROLS, LEGEND_HTML, Palette, draw
from .walks import draw_walk
from .wanted import Wanted


def page(machine: Machine, spaces: Sequence[str], walks: Sequence[Wanted], checkpoint: int | None = None) -> str:
    """The whole page as one string of HTML that refers to nothing outside itself.

    `checkpoint` is the one a capture was opened at, for its folios.
    """
    try:
        accounts, why = Accounts.of(machine, checkpoint), ""
    except InputError as error:
        accounts, why = None, error.problem
    parts = [("the machine", "".join(_machine(machine)))]
    parts += [(_walk_title(wanted), "".join(draw_walk(machine, wanted))) for wanted in tracked(walks, "walks")]
    palette = Palette(accounts)
    for nth, name in enumerate(tracked(spaces, "address spaces")):
        controls = CONTROLS if nth == 0 else ""
        parts.append((f"address space {name}", controls + "".join(_space(machine, name, palette))))
    frames = _frames(machine, walks)
    folios = f"<p>{escape(why)}</p>" if accounts is None else "".join(draw_folios(accounts, frames))
    parts.append(("folios under three accounting models", folios))
    return document(f"{machine.source}: page tables", machine.source, parts)


def _machine(machine: Machine) -> Iterator[str]:
    kernel = f", Linux {machine.kernel}" if machine.kernel else ""
    yield f"<p>{escape(machine.format)}, {machine.arch}{escape(kernel)}</p><table>"
    for name, value in paging(machine).items():
        yield f"<tr><th>{escape(name)}</th><td>{escape(plain(value))}</td></tr>"
    yield "</table>"
    for note in machine.notes:
        yield f"<p class='dim'>{escape(note)}</p>"


def _walk_title(wanted: Wanted) -> str:
    who = "user" if wanted.access.user else "kernel"
    return f"{wanted.access.kind.value} of {wanted.va:#018x}, {who}, {wanted.space or 'own registers'}"


def _frames(machine: Machine, walks: Sequence[Wanted]) -> set[int]:
    """The frames that the walks lead to."""
    found = set()
    for wanted in walks:
        regime = machine.regime(wanted.space)
        end = finish(regime.walk(machine.memory, wanted.va, wanted.access))[1]
        if isinstance(end, Translation):
            found.add(end.pa >> regime.trees[0].levels[-1].shift)
    return found


def _space(machine: Machine, name: str, palette: Palette) -> Iterator[str]:
    regime = machine.regime(name)
    yield LEGEND_HTML
    yield from draw(regime, list(leaves(machine.memory, regime)), palette)
    findings = lint(machine.memory, regime)
    yield f"<h3>Lint: {len(findings)} findings</h3><div class='scroll'><table>"
    for f in findings:
        yield f"<tr><td>{f.va:#018x}</td><td>{escape(f.rule)}</td><td>{escape(f.text)}</td></tr>"
    yield "</table></div>"

"""Which walks a page draws."""

from __future__ import annotations

from typing import NamedTuple

from ..mmu.machine import Machine
from ..mmu.spaces import leaves
from ..mmu.walk import Access, AccessKind, Translation, finish


class Wanted(NamedTuple):
    """A walk to draw: the space (None for the machine's own registers), the address, and the access."""

    space: str | None
    va: int
    access: Access


def default_walks(machine: Machine, space: str) -> list[Wanted]:
    """The first page that the user can reach, so that the page shows a walk where none was asked for."""
    regime = machine.regime(space)
    for leaf in leaves(machine.memory, regime):
        access = Access(AccessKind.READ, user=True)
        end = finish(regime.walk(machine.memory, leaf.va, access))[1]
        if isinstance(end, Translation):
            return [Wanted(space, leaf.va, access)]
    return []

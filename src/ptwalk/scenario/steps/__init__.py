"""The verbs of a scenario: operands checked, then the operation."""

from __future__ import annotations

from collections.abc import Callable

from ...rmap.space.system import ARCHES, Settings, System
from ..script import Words
from . import areas, faults, pages, processes

_LIMITS = {"mapcount": "mapcount", "total": "total_mapped_pages", "refs": "refcount"}


def _arch(settings: Settings, words: Words) -> None:
    settings.arch = words.choice("the architecture", tuple(ARCHES))


def _bits(settings: Settings, words: Words) -> None:
    settings.bits = int(words.choice("the word width", ("64", "32")))


def _literal(settings: Settings, words: Words) -> None:
    settings.literal = True


def _limit(settings: Settings, words: Words) -> None:
    name = words.choice("the limit", tuple(_LIMITS))
    settings.limits[_LIMITS[name]] = words.number("the limit")


SETTINGS: dict[str, Callable[[Settings, Words], None]] = {
    "arch": _arch,
    "bits": _bits,
    "literal": _literal,
    "limit": _limit,
}
"""Lines that must stand before the first step."""

STEPS: dict[str, Callable[[System, Words], list[str]]] = areas.STEPS | processes.STEPS | faults.STEPS | pages.STEPS
"""Every step; each returns the sentences that the runner prints under it."""

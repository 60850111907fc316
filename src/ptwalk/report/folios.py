"""The folios of a machine: who maps which part, and the counters of the three models."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from html import escape

from ..rmap.adopt.process import runs
from ..rmap.folio import Folio
from ..rmap.models import MODELS
from ..shell.accounts import Accounts
from .accounting import LEVELS, Part, figures_table, folio_picture, interesting, joined

SHOWN = 24
"""Folios that are drawn; how many there are is said."""


def mapped_folios(accounts: Accounts) -> dict[Folio, dict[str, list[Part]]]:
    """What each process maps of each folio, hugetlb left out (its huge pages have no parts)."""
    found: dict[Folio, dict[str, list[Part]]] = {}
    for name, process in accounts.processes.items():
        for folio, level, first, n in runs(process, accounts.frames):
            found.setdefault(folio, {}).setdefault(name, []).append((level, first, n))
    return found


def chosen(found: dict[Folio, dict[str, list[Part]]], wanted: Collection[int]) -> list[Folio]:
    """The folios of the frames in `wanted`, then those with most pages, most processes and most parts."""

    def rank(folio: Folio) -> tuple[bool, bool, int, int, int]:
        mine = any(folio.pfn <= pfn < folio.pfn + folio.nr_pages for pfn in wanted)
        parts = sum(map(len, found[folio].values()))
        return not mine, len(found[folio]) < 2, -folio.order, -parts, folio.pfn

    return sorted(found, key=rank)[:SHOWN]


def draw_folios(accounts: Accounts, wanted: Collection[int]) -> Iterator[str]:
    """The HTML: a picture and a table of counters for each chosen folio; which were chosen is said."""
    found = mapped_folios(accounts)
    folios = chosen(found, wanted)
    yield (
        f"<p>{len(folios)} of {len(found)} mapped folios: those that the walks above lead to, then shared before "
        f"unshared ones, the largest first. {len(accounts.processes)} processes were adopted; hugetlb "
        f"pages, which have no parts, are left out.</p>{LEVELS}"
    )
    for folio in folios:
        title = f"{folio.kind.value} folio, pfn {folio.pfn:#x}, order {folio.order}, {folio.nr_pages} pages"
        mapped = {name: joined(sorted(parts, key=lambda part: part[1])) for name, parts in found[folio].items()}
        yield f"<details open><summary>{escape(title)}, {_who(mapped)}</summary>"
        yield folio_picture(folio.nr_pages, mapped)
        counters = accounts.counters(folio.pfn * accounts.page_size).models
        yield figures_table(interesting(counters, ("folio_mapcount",)), list(MODELS)) + "</details>"


def _who(mapped: dict[str, list[Part]]) -> str:
    return f"mapped by {escape(', '.join(mapped))}"

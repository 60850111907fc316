"""The stories of scenarios.json: counters and /proc figures worked by hand, T as intended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.errors import Rejected
from ptwalk.rmap.figures import (
    Entry,
    MemSizeStats,
    kpagecount,
    mapmax,
    pagemap_exclusive,
    pss_kb,
    smaps_account,
)
from ptwalk.rmap.folio import Kind
from ptwalk.rmap.levels import Level
from ptwalk.rmap.models import Model
from ptwalk.rmap.models.precise import ENTIRELY_MAPPED
from ptwalk.rmap.stats import Nr
from ptwalk.rmap.stream import Stream

SCENARIOS = json.loads((Path(__file__).parents[2] / "data" / "rmap" / "scenarios.json").read_text())
MODELS = {"P": "precise", "N": "no-page-mapcount", "T": "total-mapped-pages"}
A, B, C = 1, 2, 3
PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD


def v01(s: Stream) -> None:
    s.new(0, A, True)


def v02(s: Stream) -> None:
    v01(s)
    s.split(0, A, 0)


def v03(s: Stream) -> None:
    v01(s)
    s.fork(A, B)


def v04(s: Stream) -> None:
    v03(s)
    s.exit(B)


def v05(s: Stream) -> None:
    v02(s)
    s.rem(0, A, PTE, 0, 256)


def v06(s: Stream) -> None:
    v02(s)
    s.fork(A, B)
    s.rem(0, A, PTE, 0, 256)
    s.rem(0, B, PTE, 0, 256)


def v07(s: Stream) -> None:
    v06(s)
    s.exit(B)


def v08(s: Stream) -> None:
    v03(s)
    s.split(0, A, 0)
    s.rem(0, A, PTE, 0, 256)


def v09(s: Stream) -> None:
    v08(s)
    s.rem(0, B, PMD, 0, 512)


def v12(s: Stream) -> None:
    s.add(0, A, PTE, 0, 16, False)


def v14b(s: Stream) -> None:
    s.folios[0].fresh = False
    s.add(0, A, PTE, 0, 1024, True)


def v15(s: Stream) -> None:
    s.add(0, A, PMD, 0, 512, False)


def v15b(s: Stream) -> None:
    s.add(0, A, PTE, 0, 512, False)


def v16(s: Stream) -> None:
    v01(s)
    s.rem(0, A, PMD, 512, 512)


def v18(s: Stream) -> None:
    s.add(0, A, PUD, 0, 262144, False)


def v21(s: Stream) -> None:
    v03(s)
    s.rem(0, A, PTE, 3, 1)


def v23(s: Stream) -> None:
    v03(s)
    s.fork(A, C)


def v24(s: Stream) -> None:
    v23(s)
    s.exit(A)
    s.exit(B)


def v30(s: Stream) -> None:
    v02(s)
    s.fork(A, B)
    s.rem(0, B, PTE, 0, 256)


STORIES: dict[str, tuple[int, Kind, Callable[[Stream], None], tuple[int, ...]]] = {
    "V01": (9, Kind.ANON, v01, (0,)),
    "V02": (9, Kind.ANON, v02, (0,)),
    "V03": (9, Kind.ANON, v03, (0,)),
    "V04": (9, Kind.ANON, v04, (0,)),
    "V05": (9, Kind.ANON, v05, (0, 256)),
    "V06": (9, Kind.ANON, v06, (0, 256)),
    "V07": (9, Kind.ANON, v07, (0, 256)),
    "V08": (9, Kind.ANON, v08, (0, 256)),
    "V09": (9, Kind.ANON, v09, (0, 256)),
    "V12": (9, Kind.SHMEM, v12, (0, 16)),
    "V14": (10, Kind.ANON, v01, (0,)),
    "V14b": (10, Kind.ANON, v14b, (0,)),
    "V15": (10, Kind.SHMEM, v15, (0, 512)),
    "V15b": (10, Kind.SHMEM, v15b, (0, 512)),
    "V16": (10, Kind.ANON, v16, (0, 512)),
    "V18": (18, Kind.FILE, v18, (0,)),
    "V21": (4, Kind.ANON, v21, (0, 3)),
    "V23": (4, Kind.ANON, v23, (0,)),
    "V24": (4, Kind.ANON, v24, (0,)),
    "V28": (9, Kind.ANON, v23, (0,)),
    "V30": (9, Kind.ANON, v30, (0, 256)),
}
"""Folio order, kind, story and the pages whose kpagecount is probed, by the first word of the scenario's name."""


def story(name: str, model: str) -> Stream:
    order, kind, tell, _ = STORIES[name.split()[0]]
    stream = Stream(Accounting([model]))
    stream.folios = [stream.acct.folio(order, kind)]
    tell(stream)
    return stream


def counters(model: Model, stream: Stream, probes: tuple[int, ...]) -> dict[str, Any]:
    folio = stream.folios[0]
    raw = model.fields(folio)
    word = raw.get("_nr_pages_mapped")
    entirely = word is not None and word & ENTIRELY_MAPPED
    if word is not None:
        word = f"EM+{word & ~ENTIRELY_MAPPED}" if entirely else str(word)
    return {
        "large": raw["_large_mapcount"],
        "mapcount": model.mapcount(folio),
        "entire": raw["_entire_mapcount"] + 1 if "_entire_mapcount" in raw else None,
        "nrmapped": word,
        "total": raw.get("_total_mapped_pages"),
        "ids": [raw["_mm_id[0]"], raw["_mm_id[1]"]],
        "idmc": [raw["_mm_id_mapcount[0]"], raw["_mm_id_mapcount[1]"]],
        "shbit": bool(raw["shared"]),
        "maybe": model.maybe_mapped_shared(folio),
        "avg": model.average_page_mapcount(folio),
        "MAPPED": model.stats.nr[Nr.ANON_MAPPED] + model.stats.nr[Nr.FILE_MAPPED],
        "PMDM": sum(model.stats.nr[Nr.ANON_THPS :]),
        "partial": model.of(folio).partially_mapped,
        "kpc": [kpagecount(model, folio, page) for page in probes],
        "ref": model.refcount(folio),
    }


def proc_figures(model: Model, stream: Stream, mm: int) -> dict[str, int]:
    folio, stats, exclusive, highest = stream.folios[0], MemSizeStats(), 0, 0
    for level, first, n in stream.mapped(0, mm).runs():
        for page in range(first, first + n, model.rules.levels.size(level)):
            smaps_account(stats, model, folio, Entry(level, page))
            highest = max(highest, mapmax(model, folio, page))
        exclusive += sum(pagemap_exclusive(model, folio, page) for page in range(first, first + n))
    return {
        "rss": stats.resident >> 10,
        "pss": pss_kb(stats.pss),
        "pss_raw": stats.pss,
        "shared": stats.shared >> 10,
        "private": stats.uss >> 10,
        "thp": (stats.anonymous_thp + stats.shmem_thp + stats.file_thp) >> 10,
        "mapmax": highest,
        "excl": exclusive,
    }


@pytest.mark.parametrize("letter", MODELS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_story_ends_as_worked_by_hand(name: str, letter: str) -> None:
    want = SCENARIOS[name][letter]
    if isinstance(want, str):
        with pytest.raises(Rejected):
            story(name, MODELS[letter])
        return
    stream = story(name, MODELS[letter])
    got = counters(stream.acct.driver, stream, STORIES[name.split()[0]][3])
    assert got == {k: v for k, v in want.items() if k != "sm"}
    for mm, figures in want["sm"].items():
        assert proc_figures(stream.acct.driver, stream, int(mm)) == figures


def test_every_scenario_has_a_story() -> None:
    assert {name.split()[0] for name in SCENARIOS} == set(STORIES)

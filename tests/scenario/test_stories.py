"""The shipped stories end with the counters and figures that scenarios.json gives, worked by hand for each model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.system import Settings, System
from ptwalk.rmap.views.pagemap import PagemapView
from ptwalk.rmap.views.rules import AS_MEANT
from ptwalk.scenario import snapshot
from ptwalk.scenario.runner import Run, run
from ptwalk.scenario.script import Words, read
from ptwalk.scenario.snapshot import Column
from ptwalk.scenario.steps import STEPS

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "examples" / "scenarios"
WANTED = json.loads((ROOT / "tests" / "data" / "rmap" / "scenarios.json").read_text())
LETTERS = dict(zip("PNT", MODELS, strict=True))


def expand(text: str, pages: int) -> list[int]:
    """kpagecount's runs as one value a page."""
    values = []
    for part in text.split():
        extent, _, value = part.rpartition(":")
        first, _, last = extent.partition("..")
        values += [int(value)] * (int(last) - int(first) + 1 if extent else pages)
    return values


def slots(column: Column) -> list[tuple[str, int]]:
    found = [part.split(":") for part in str(column["mm-id slots"]).split() if part != "-"]
    return [(name, int(n)) for name, n in found]


def counters(story: Run, model: str) -> dict[str, Any]:
    last = story.steps[-1].snapshot
    folio = last.folios["F"]
    column, system = folio.models[model], last.system[model]
    return {
        "mapcount": column["mapcount"],
        "entire": column.get("entire mapcount"),
        "nrmapped": column.get("nr_pages_mapped"),
        "total": column.get("total mapped pages"),
        "shbit": column["shared bit"],
        "maybe": column["maybe mapped shared"],
        "avg": column["average mapcount"],
        "MAPPED": (int(system["AnonPages"]) + int(system["Mapped"])) // 4,
        "PMDM": sum(int(system[name]) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")) // 4,
        "partial": column.get("partially mapped", False),
        "ref": folio.references,
    }


def figures(column: Column) -> dict[str, int]:
    names = {"rss": "Rss", "pss": "Pss", "shared": "Shared", "private": "Private", "mapmax": "mapmax"}
    thp = sum(int(column[name]) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))
    return {short: int(column[name]) for short, name in names.items()} | {
        "thp": thp,
        "excl": int(column["MMAP_EXCLUSIVE"]),
    }


@pytest.mark.parametrize("name", WANTED)
def test_the_story_ends_as_worked_by_hand(name: str) -> None:
    story = run(SCENARIOS / f"{name.split()[0].lower()}.scn")
    for letter, model in LETTERS.items():
        want = WANTED[name][letter]
        if isinstance(want, str):
            assert model in story.steps[-1].snapshot.folios["F"].refused
            assert any(refuser == model for step in story.steps for refuser, _ in step.refusals)
            continue
        got = counters(story, model)
        assert got == {key: want[key] for key in got}, model
        column = story.steps[-1].snapshot.folios["F"].models[model]
        assert column["mapcount"] == want["large"] + 1
        ids = [("-ABCD"[mm], n + 1) for mm, n in zip(want["ids"], want["idmc"], strict=True) if mm]
        assert slots(column) == ids
        pages = expand(str(column["kpagecount"]), 1 << story.steps[-1].snapshot.folios["F"].order)
        assert set(want["kpc"]) <= set(pages)
        for mm, shown in want["sm"].items():
            process = story.steps[-1].snapshot.processes["-ABCD"[int(mm)]][model]
            assert figures(process) == {key: value for key, value in shown.items() if key != "pss_raw"}, (model, mm)


PROBES = {"V05": (0, 256), "V06": (0, 256), "V08": (0, 256), "V12": (0, 16), "V21": (0, 3), "V30": (0, 256)}


@pytest.mark.parametrize("name", PROBES)
def test_kpagecount_page_by_page(name: str) -> None:
    story = run(SCENARIOS / f"{name.lower()}.scn")
    full = next(full for full in WANTED if full.split()[0] == name)
    folio = story.steps[-1].snapshot.folios["F"]
    for letter, model in LETTERS.items():
        pages = expand(str(folio.models[model]["kpagecount"]), 1 << folio.order)
        assert [pages[page] for page in PROBES[name]] == WANTED[full][letter]["kpc"]


@pytest.mark.parametrize("name", ["v06", "v08", "v21", "change-3-exclusive", "arm64-16k-contpte"])
def test_exclusive_pages_are_those_of_pagemap(name: str) -> None:
    """The quick count over runs of pages against bit 56 of every word of pagemap."""
    machine = machine_of(SCENARIOS / f"{name}.scn")
    shown = snapshot.take(machine).processes
    compared = 0
    for process in machine.processes.values():
        for model, column in shown[process.name].items():
            view = PagemapView(process, machine, machine.acct.models[model], AS_MEANT)
            words = [word for vma in process.vmas() for word in view.words(vma.start, vma.end)]
            assert column["MMAP_EXCLUSIVE"] == sum(word >> 56 & 1 for word in words)
            compared += 1
    assert compared


def machine_of(path: Path) -> System:
    lines = read(path)
    arch = next((line.words[1] for line in lines if line.words[0] == "arch"), "x86_64")
    machine = System(Settings(arch))
    for line in lines:
        if line.words[0] in STEPS:
            STEPS[line.words[0]](machine, Words(line, path))
    return machine


def test_every_story_of_the_data_is_shipped() -> None:
    shipped = {path.stem.upper() for path in SCENARIOS.glob("v*.scn")}
    assert shipped == {name.split()[0].upper() for name in WANTED}


def test_one_scenario_for_each_functional_change() -> None:
    assert {path.name.split("-")[1] for path in SCENARIOS.glob("change-*.scn")} == set("1234567")

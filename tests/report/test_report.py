"""The report page: well-formed, self-contained, and true to the walks and spaces it draws."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ptwalk.arch.linux_proc import KPF
from ptwalk.cli import run
from ptwalk.loaders import load
from ptwalk.loaders.capture import Capture
from ptwalk.mmu.spaces import leaves, ranges

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
VOID = {"meta", "br", "input"}


class Checker(HTMLParser):
    """Checks nesting, and collects text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        refers = [(name, value or "") for name, value in attrs if name in ("src", "href")]
        self.outside += [f"{name}={value}" for name, value in refers if not value.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("name", ["x86_64-deb6.1-nopti", "arm64-deb7.3-4k-lpa2"])
def test_the_page_holds_every_range_and_nothing_from_outside(tmp_path: Path, name: str) -> None:
    capture, out = CAPTURES / f"{name}.tar.xz", tmp_path / "page.html"
    assert run(["report", str(capture), "-o", str(out), "--process", "A", "--walk", "1000"]) == 0
    html = out.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.outside == []
    assert not re.search(r"url\(|@import|https?://", html)
    text = " ".join(checker.text)
    machine = load(capture)
    for r in ranges(leaves(machine.memory, machine.regime("A"))):
        assert f"{r.va:#018x}" in text
    assert "FAULT" in text
    assert f"{machine.kernel}" in text


def test_names_from_the_file_cannot_inject_markup(tmp_path: Path) -> None:
    layout = tmp_path / "layout.toml"
    layout.write_text(
        'preset = "x86_64-4level"\n[[memory]]\nstart = "0x0"\nsize = "16M"\n[[spaces]]\nname = "<b>s</b>"\n'
        '[[spaces.mappings]]\nva = "0x400000"\npa = "0x800000"\nsize = "4K"\n'
    )
    out = tmp_path / "page.html"
    assert run(["report", str(layout), "-o", str(out)]) == 0
    html = out.read_text(encoding="utf-8")
    assert "&lt;b&gt;s&lt;/b&gt;" in html
    assert "<b>s</b>" not in html


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "missing" / "page.html"
    assert run(["report", str(CAPTURES / "x86_64-7.3.4-P.tar.xz"), "-o", str(out)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not out.parent.exists()


def written(tmp_path: Path, *arguments: str) -> str:
    out = tmp_path / "page.html"
    assert run(["report", *arguments, "-o", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_folios_that_the_walk_leads_to_come_first_with_the_kernel_s_own_count(tmp_path: Path) -> None:
    """PFN 0x11a00 of process A: kpagecount said 3 when this kernel was captured; the folio has one PMD and 48 PTEs."""
    html = written(tmp_path, str(CAPTURES / "x86_64-7.3.4-P.tar.xz"), "--process", "A", "--walk", "0x160000000")
    section = html[html.index("folios under three accounting models</h2>") :]
    first = section[section.index("<details open>") :]
    assert first.startswith("<details open><summary>shmem folio, pfn 0x11a00, order 9, 512 pages, mapped by A, C")
    capture = Capture(CAPTURES / "x86_64-7.3.4-P.tar.xz")
    counts = capture.checkpoint(5).pfn_array("count")
    assert counts is not None
    count = counts.get(0x11A00)
    assert f'<th scope="row">kpagecount</th><td>{count}</td>' in first
    assert re.search(r"<p>24 of \d+ mapped folios", section)


def test_kinds_are_what_kpageflags_says_of_every_page(tmp_path: Path) -> None:
    """Rows of one kind hold no page that the kernel called otherwise; the linear map of all memory is of several."""
    path = CAPTURES / "x86_64-7.3.4-P.tar.xz"
    page = written(tmp_path, str(path), "--process", "A")
    flags = Capture(path).checkpoint(5).pfn_array("flags")
    assert flags is not None
    machine = load(path)
    mapped = list(leaves(machine.memory, machine.regime("A")))
    rows = re.findall(r'<td class="\w+ s\d (\w+)">[^/]*</td><td>0x(\w+)</td><td>0x(\w+)</td>', page)
    wanted = {"anon": "ANON", "huge": "HUGE", "ksm": "KSM", "shmem": "SWAPBACKED"}
    seen: Counter[tuple[str, int]] = Counter()
    for kind, va, end in rows:
        seen[kind, int(va, 16) >> 63] += 1
        inside = [leaf for leaf in mapped if int(va, 16) <= leaf.va < int(end, 16)]
        for word in (flags.get(pfn) for leaf in inside for pfn in range(leaf.pa >> 12, (leaf.pa + leaf.size) >> 12)):
            if kind in wanted:
                assert word is not None
                assert word & KPF.mask(wanted[kind])
            elif kind in ("kernel", "file"):
                assert word is not None
                assert not word & KPF.mask("ANON", "HUGE", "SWAPBACKED")
                assert kind == "kernel" or not word & KPF.mask("SLAB", "BUDDY", "PGTABLE")
    assert seen["mixed", 1] > 0
    assert seen["kernel", 1] > 0
    assert seen["shmem", 0] > 0
    assert seen["anon", 0] > 0


def test_a_source_without_folios_says_so(tmp_path: Path) -> None:
    layout = tmp_path / "layout.toml"
    layout.write_text(
        'preset = "x86_64-4level"\n[[memory]]\nstart = "0x0"\nsize = "16M"\n[[spaces]]\nname = "s"\n'
        '[[spaces.mappings]]\nva = "0x400000"\npa = "0x800000"\nsize = "4K"\n'
    )
    assert "no rmap counters: they need a capture with kpageflags" in written(tmp_path, str(layout))


def test_a_scenario_s_page_has_a_section_for_each_step_that_maps(tmp_path: Path) -> None:
    html = written(tmp_path, str(CAPTURES.parent / "scenarios" / "overflow.scn"))
    text = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "line 8: fork A D" in text
    assert "-ENOMEM: E is not created, F is at the soft limit" in text
    checker = Checker()
    checker.feed(html)
    assert (checker.open, checker.outside) == ([], [])


def test_options_of_a_machine_are_none_of_a_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = CAPTURES.parent / "scenarios" / "v01.scn"
    assert run(["report", str(scenario), "-o", str(tmp_path / "x.html"), "--process", "A"]) == 2
    assert "takes no other options" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()

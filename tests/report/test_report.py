"""The report page: well-formed, self-contained, and true to the walks and spaces it draws."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ptwalk.cli import run
from ptwalk.loaders import load
from ptwalk.mmu.spaces import leaves, ranges

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
VOID = {"meta", "rect", "br"}


class Checker(HTMLParser):
    """Checks nesting, and collects text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{name}={value}" for name, value in attrs if name in ("src", "href")]
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

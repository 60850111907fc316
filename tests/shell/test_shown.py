"""One picture in three forms: plain, in colour, as HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from ptwalk.shell import EXAMPLE, Session
from ptwalk.shell.names import Help, MachineView, Names, Topic
from ptwalk.shell.shown import Shown


class Text(HTMLParser):
    """The text of a page whose tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.open, self.colours = "", [], set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        style = dict(attrs).get("style") or ""
        self.colours |= {part.split(":")[1].strip() for part in style.split(";") if part.strip().startswith("color")}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures() -> dict[str, Shown]:
    session = Session.open(EXAMPLE)
    names = Names(session)
    found: dict[str, Shown] = {
        "step": session.step(0x60_1000),
        "walk": session.walk(0x60_1000),
        "entry": names["pte"],
        "register": names["cr4"],
        "registers": session.regs,
        "processes": session.processes,
        "maps": session.maps(),
        "word": session.decode(0x8000_0000_0000_0067, "PTE"),
        "counters": session.rmap(),
        "help": Help(),
        "topic": Topic(names["step"]),
        "machine": MachineView(session.machine),
    }
    session.entry("pte").raw = 0
    return found | {"difference": session.diff(), "edits": session.edits(), "program": session.python()}


@pytest.mark.parametrize("name", list(pictures()))
def test_all_forms_say_the_same(name: str) -> None:
    shown = pictures()[name]
    plain = repr(shown)
    assert plain
    assert "\x1b" not in plain
    assert all(line == line.rstrip() or name in ("counters", "step") for line in plain.splitlines())
    wide = Console(file=StringIO(), width=400, color_system="truecolor", force_terminal=True, record=True)
    wide.print(shown, highlight=False)
    assert [line.rstrip() for line in wide.export_text().splitlines()] == [x.rstrip() for x in plain.splitlines()]
    page = Text()
    page.feed(shown._repr_html_())
    assert not page.open
    assert page.text.split() == plain.split()


def test_colours_can_be_read_on_light_and_dark_pages() -> None:
    """WCAG's contrast against white and against a dark notebook's #111 is at least 3 for every colour used."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    seen = set[str]()
    for shown in pictures().values():
        page = Text()
        page.feed(shown._repr_html_())
        seen |= page.colours
    assert len(seen) > 2
    for colour in seen:
        for ground in ("#ffffff", "#111111"):
            dark, light = sorted((luminance(colour), luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= 3, (colour, ground)

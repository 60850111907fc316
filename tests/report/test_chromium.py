"""The report in a real browser: what opens with a click or a key, what the switch recolours, light, dark, narrow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ptwalk.cli import run

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no Chromium on this machine: none of {', '.join(NAMES)}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    sources = {
        "capture": [
            "examples/captures/x86_64-7.3.4-P.tar.xz",
            "--process",
            "A",
            "--walk",
            "0x160000000",
            "--walk",
            "8",
        ],
        "scenario": ["examples/scenarios/change-5-pss.scn"],
    }
    for name, (file, *options) in sources.items():
        assert run(["report", str(ROOT / file), "-o", str(folder / f"{name}.html"), *options]) == 0
    return {name: (folder / f"{name}.html").as_uri() for name in sources}


def opened(browser: Browser, url: str, **how: object) -> tuple[Page, list[str]]:
    """The page, and everything that it asked for or complained about."""
    page = browser.new_page(**how)  # type: ignore[arg-type]  # Playwright's own keywords
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url != url else None)
    page.goto(url)
    return page, trouble


@pytest.mark.parametrize("name", ["capture", "scenario"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_stands_alone_and_fits(browser: Browser, pages: dict[str, str], name: str, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    page, trouble = opened(browser, pages[name], viewport=size, color_scheme=scheme, java_script_enabled=True)
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(23, 25, 28)") == (scheme == "dark")
    for link in page.query_selector_all("nav a"):
        target = link.get_attribute("href") or ""
        assert page.query_selector(f"section{target}") is not None
    page.close()


def test_spaces_open_with_a_click_and_with_a_key(browser: Browser, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["capture"])
    row = page.locator("td", has_text="0x0000000160000000").first
    assert not row.is_visible()
    closed = page.locator("details:not([open]) > summary", has_text="PML4E 0x0000000000000000")
    closed.first.click()
    page.locator("details[open] details:not([open]) > summary", has_text="PDPTE 0x0000000140000000").first.press(
        "Enter"
    )
    assert row.is_visible()
    page.close()


def test_the_switch_recolours_strips_and_tables(browser: Browser, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["capture"])
    fills = "[...document.querySelectorAll('.strip rect')].map(r => getComputedStyle(r).fill).join()"
    seen = {}
    for name in ("rights", "size", "kind"):
        page.get_by_label(name, exact=True).check()
        seen[name] = page.evaluate(fills)
        assert page.locator(f".legend.by-{name}").first.is_visible()
        assert page.locator(".legend[class*=by-]:visible").count() == 1
    assert len(set(seen.values())) == 3
    page.get_by_label("rights", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(fills) == seen["size"]
    page.close()


def test_the_switch_and_the_spaces_need_no_script(browser: Browser, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["capture"], java_script_enabled=False)
    for name in ("kind", "size", "rights"):
        page.get_by_label(name, exact=True).check()
        shown = [one for one in ("rights", "size", "kind") if page.locator(f".legend.by-{one}").first.is_visible()]
        assert shown == [name]
    inside = page.locator("details[open] > details", has_text="PML4E 0x0000000000000000").first
    assert inside.get_attribute("open") is None
    inside.locator("summary").first.press("Enter")
    assert inside.get_attribute("open") is not None
    page.close()


def test_walk_and_folios_are_drawn(browser: Browser, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["capture"])
    tables = page.locator(".tables").first.locator("figure")
    assert [tables.nth(k).locator("figcaption").inner_text().splitlines()[0] for k in range(3)] == [
        "PML4E / PGD",
        "PDPTE / PUD",
        "PDE / PMD",
    ]
    assert page.locator(".tables .hit.blame").count() == 1  # the walk of 0x8 ends at an entry that is not present
    folio = page.locator("details", has=page.locator("summary", has_text="pfn 0x11a00")).first
    assert folio.locator(".lane rect.l1").first.bounding_box() is not None
    wide = folio.locator(".lane rect.l1").first.bounding_box()
    lane = folio.locator(".lane").first.bounding_box()
    assert wide is not None
    assert lane is not None
    assert abs(wide["width"] - lane["width"]) < 2  # a PMD maps all of the 512 pages
    page.close()


def test_a_scenario_marks_what_differs(browser: Browser, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["scenario"])
    marked = page.locator("section").last.locator("tr.differs th")
    assert {"Pss kB", "Private kB", "kpagecount"} <= {marked.nth(k).inner_text() for k in range(marked.count())}
    written = page.locator("summary", has_text="entries written").last
    written.click()
    assert page.locator("pre", has_text="PTE x16").last.is_visible()
    page.close()

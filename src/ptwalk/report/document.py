"""The skeleton that every report shares: one HTML document that refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files

from .. import __version__


def document(title: str, heading: str, parts: Iterable[tuple[str, str]]) -> str:
    """The whole page: parts are (heading, HTML); a list of links to them stands at the top."""
    css = files("ptwalk.report").joinpath("style.css").read_text(encoding="utf-8")
    body, links = [], []
    for nth, (name, html) in enumerate(parts):
        links.append(f'<a href="#part-{nth}">{escape(name)}</a>')
        body.append(f'<section id="part-{nth}"><h2>{escape(name)}</h2>{html}</section>')
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head><body>',
            f"<h1>{escape(heading)}</h1><nav>{' '.join(links)}</nav>",
            *body,
            f'<p class="dim">ptwalk {__version__}</p></body></html>',
        ]
    )

"""Sphinx configuration: `python -m sphinx -W docs docs/_build` (extra `docs`)."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from ptwalk import __version__
from ptwalk.arch.arm64.kinds import KINDS as ARM64
from ptwalk.arch.layout import ADDRESS, IGNORED, RES0, SOFTWARE
from ptwalk.arch.x86_64.kinds import KINDS as X86_64
from ptwalk.mmu.arm64 import cases as arm64_cases
from ptwalk.mmu.x86_64 import cases as x86_cases

ROLES = {"": "", RES0: "reserved", IGNORED: "ignored", ADDRESS: "address", SOFTWARE: "software"}
project = "ptwalk"
author = "the ptwalk authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ptwalk {release}"
myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {
    "x86_regs": " ".join(x86_cases.REGS),
    "arm64_regs": " ".join(arm64_cases.REGS),
    "arm64_regs2": " ".join(arm64_cases.REGS2),
    "arm64_feats": " ".join(arm64_cases.FEATS),
}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # two classes are called Folio: what a source says of one, and rmap's own


def draw_entries(app: Sphinx) -> None:
    """Write a page for each architecture that draws every entry and register kind from its declaration."""
    for arch, kinds in (("x86_64", X86_64), ("arm64", ARM64)):
        parts = [f"# Entries and registers of {arch}\n\nDrawn from the declarations in `arch/{arch}/`.\n"]
        for name, layout in sorted(kinds.items()):
            rows = [
                f"| {f.shift + f.width - 1}:{f.shift} | {f.name} | {ROLES[f.role]} |"
                for f in reversed(list(layout.values()))
            ]
            head = f"\n## {name}\n\n{layout.title} ({layout.width} bits; {layout.source or 'no source'})\n"
            parts.append("\n".join([head, "| bits | field | role |", "|---|---|---|", *rows]) + "\n")
        Path(app.srcdir, f"entries-{arch}.md").write_text("".join(parts), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", draw_entries)

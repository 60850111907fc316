"""The lines of /proc/meminfo that mappings move."""

from __future__ import annotations

from ..models import Model


def figures(model: Model) -> dict[str, int]:
    """AnonPages, Mapped, AnonHugePages, ShmemPmdMapped and FilePmdMapped of one model, in kB."""
    return model.stats.meminfo(model.rules.page_size)


def text(model: Model) -> str:
    """Those lines as the kernel prints them.

    >>> from ..levels import Rules
    >>> from ..models import Precise
    >>> text(Precise(Rules())).splitlines()[0]
    'AnonPages:             0 kB'
    """
    return "".join(f"{label + ':':<16}{kb:8} kB\n" for label, kb in figures(model).items())

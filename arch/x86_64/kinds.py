"""Everything x86 that `ptwalk decode` knows, by name."""

from __future__ import annotations

from ..layout import Layout, merge
from . import entries, ept, faults, linux, registers

KINDS: dict[str, Layout] = merge(
    *(layout for part in (entries, ept, registers, faults, linux) for layout in part.LAYOUTS.values())
)

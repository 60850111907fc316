"""Everything x86 that `ptwalk decode` knows, by name."""

from __future__ import annotations

from ..layout import Layout, merge
from . import entries, faults, linux, registers

KINDS: dict[str, Layout] = merge(
    *entries.LAYOUTS.values(), *registers.LAYOUTS.values(), *faults.LAYOUTS.values(), *linux.LAYOUTS.values()
)

"""Everything arm64 that `ptwalk decode` knows, by name."""

from __future__ import annotations

from ..layout import Layout, merge
from . import descriptors, faults, linux, registers

KINDS: dict[str, Layout] = merge(
    *descriptors.LAYOUTS.values(), *registers.LAYOUTS.values(), *faults.LAYOUTS.values(), *linux.LAYOUTS.values()
)

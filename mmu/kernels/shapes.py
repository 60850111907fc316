"""The shapes of table trees, read back from the layouts in arch/: what each format's fast forms are compiled with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...arch.arm64.descriptors import HIGH_ADDRESS
from ...arch.layout import ADDRESS, Layout
from ..regime import Regime
from ..walk import Level
from .format import Format

U64 = np.uint64
ALL = (1 << 64) - 1


class Shape(NamedTuple):
    """How a format's entries are built: the `Format`, and entries that grant everything and need no update."""

    format: Format
    table: int
    page: int
    block: int

    def address(self, e: int) -> int:
        f = self.format
        return e & int(f.address) | (e & int(f.high)) << int(f.high_shift)

    def leaf(self, base: int, rights: int) -> int:
        """The leaf `base` with the flipped rights bits of the index `rights` set."""
        f = self.format
        return base ^ (rights & 3) << int(f.low_shift) ^ (rights >> 2 & int(f.up_mask)) << int(f.up_shift)


def _addresses(layout: Layout) -> tuple[int, int, int]:
    """(bits in place, bits elsewhere, how far up those belong) of a layout's address."""
    in_place, high, shift = 0, 0, 0
    for part in layout.values():
        if part.role == ADDRESS:
            if part.name in HIGH_ADDRESS:
                high, shift = part.mask, HIGH_ADDRESS[part.name] - part.shift
            else:
                in_place |= part.mask
    return in_place, high, shift


def shape_of(regime: Regime, levels: Sequence[Level]) -> Shape:
    page = regime.classify(levels[-1], 3).layout
    table = regime.classify(levels[0], 3).layout
    in_place, high, high_shift = _addresses(page)
    common = {
        "page_shift": levels[-1].shift,
        "stride": levels[-1].index_bits,
        "top_shift": levels[0].shift,
        "address": in_place,
        "high": high,
        "high_shift": high_shift,
    }
    if regime.arch == "x86_64":
        flip = page.mask("RW", "US", "A")
        parts = {
            "half_bit": 63, "leaf_flip": flip | page.mask("D"), "table_flip": flip, "low_shift": page["RW"].shift,
            "up_shift": page["XD"].shift, "up_mask": 1, "table_low_shift": page["RW"].shift,
            "table_up_shift": page["XD"].shift, "fold": ALL, "split": 0,
            "inside": 0, "outside": 0, "contiguous": 0, "modifier_mask": 0,
            "modifier_shift": 0, "modified_shift": 0,
        }  # fmt: skip
        entry = page.mask("P") | flip
        large = regime.classify(levels[-2], entry | page.mask("PAT")).layout  # PS is where a PTE has PAT
        return Shape(_format(common | parts), entry, entry | page.mask("D"), entry | large.mask("PS", "D"))
    parts = {
        "half_bit": 55, "leaf_flip": 1 << page["AP"].shift | page.mask("AF"), "table_flip": 0,
        "low_shift": page["AP"].shift, "up_shift": page["PXN"].shift, "up_mask": 3,
        "table_low_shift": table["APTable"].shift, "table_up_shift": table["PXNTable"].shift, "fold": 0, "split": 1,
        "inside": 0,
        "outside": 0,
        "contiguous": page.mask("Contiguous"), "modifier_mask": 1, "modifier_shift": page["DBM"].shift,
        "modified_shift": page["AP"].shift + 1,
    }  # fmt: skip
    valid, kind = page.mask("valid"), table.mask("table")
    leaf = valid | 1 << page["AP"].shift | page.mask("AF")
    return Shape(_format(common | parts), valid | kind, leaf | kind, leaf)


def _format(values: dict[str, int]) -> Format:
    return Format(**{name: U64(value) for name, value in values.items()})

"""What the fast forms of batch translation know of a regime: the shape of its tables, and a plan for one access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LUT_ROW = 16


class Format(NamedTuple):
    """The shape of a table tree; masks and shifts are read back from arch/, all uint64.

    Rights are an index into
    `Plan.lut` that is OR-ed together from the leaf `(leaf ^ leaf_flip)` and from all tables `(t ^ table_flip)`,
    two bits at two places each.
    """

    page_shift: Any
    stride: Any
    top_shift: Any
    half_bit: Any
    address: Any  # address bits in place
    high: Any  # address bits that lie elsewhere in the entry ...
    high_shift: Any  # ... and how far up they belong
    leaf_flip: Any
    table_flip: Any
    low_shift: Any  # where the rights index takes bits 1:0 from a leaf ...
    up_shift: Any  # ... and bits 3:2 ...
    up_mask: Any
    table_low_shift: Any  # ... and both from the tables
    table_up_shift: Any
    fold: Any  # the table bits that count whatever the plan says
    split: Any  # 1 where the halves of the address space have roots of their own
    inside: Any  # the address bits that the tables of either half translate, 0 where the plan tells by half
    outside: Any  # the address bits that have to equal the half's bit in either half, 0 where the plan tells
    contiguous: Any
    modifier_mask: Any  # 1 where a leaf bit (at modifier_shift) lifts another (at modified_shift): DBM
    modifier_shift: Any
    modified_shift: Any


class PlanFields(NamedTuple):
    """One regime and one access: what depends on register values, all uint64.

    An entry that a form may follow satisfies `e & mask == value`. The first six are host addresses of arrays of words,
    indexed by `half` of the address space or by `depth` from the root.
    """

    range_info: Any  # [half]: the info word of an address outside
    none_info: Any  # [depth]: the info word of a not-present entry
    lut: Any  # [depth, LUT_ROW]: the info word of a success, 0 where refused
    block_mask: Any  # [depth], the last that of pages
    block_value: Any  # [depth]
    group: Any  # [depth]: address bits below a contiguous group
    root: Any  # of the lower half
    root_up: Any  # of the upper half
    inside: Any  # the address bits that the lower half's tables translate
    inside_up: Any
    outside: Any  # the address bits that have to equal the half's bit
    outside_up: Any
    table_mask: Any
    table_value: Any
    page_mask: Any
    page_value: Any
    fold: Any  # the bits of table entries that count
    need_leaf: Any  # bits of the flipped leaf that ask for an update
    need_table: Any  # the same for the flipped tables
    modifier: Any  # 1 where the leaf's modifier bit counts
    set_leaf: Any  # what an update sets in the leaf
    clear_leaf: Any  # and what it clears there
    set_table: Any  # what an update sets in each table entry


class Plan(PlanFields):
    """A plan that keeps its arrays alive."""

    keep: Sequence[NDArray[np.uint64]]

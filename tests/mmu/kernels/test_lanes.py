"""Eight words at once do what numpy's arrays of eight words do."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from ptwalk.mmu.kernels.host import host_address, peek
from ptwalk.mmu.kernels.jit import kernel
from ptwalk.mmu.kernels.lanes import (
    EVERY,
    address_of,
    first_lane,
    gather,
    peek_lanes,
    pick,
    poke_lanes,
    prefetch_lanes,
    scatter,
    spread,
)

U64 = np.uint64
_3 = U64(3)


@kernel
def operate(a, b, word, out):
    x, y, to, row = peek_lanes(address_of(a)), peek_lanes(address_of(b)), address_of(out), U64(64)
    poke_lanes(to, x + y)
    poke_lanes(to + row, x - word)
    poke_lanes(to + row * U64(2), x & y)
    poke_lanes(to + row * U64(3), word | y)
    poke_lanes(to + row * U64(4), x ^ y)
    poke_lanes(to + row * U64(5), x << (y & U64(63)))
    poke_lanes(to + row * U64(6), x >> U64(5))
    poke_lanes(to + row * U64(7), ~x)
    poke_lanes(to + row * U64(8), pick(x < y, x, word))
    poke_lanes(to + row * U64(9), spread(word))


@kernel
def compare(a, b):
    x, y = peek_lanes(address_of(a)), peek_lanes(address_of(b))
    return x == y, x != y, x < y


def test_operators_act_on_each_lane():
    rng = np.random.default_rng(4)
    for _ in range(20):
        a, b = rng.integers(0, 1 << 64, (2, 8), dtype=U64)
        b[rng.random(8) < 0.3] = a[0]
        word, out = U64(rng.integers(0, 1 << 63)), np.zeros((10, 8), U64)
        operate(a, b, word, out)
        shifted, chosen = a << (b & U64(63)), np.where(a < b, a, word)
        wanted = [a + b, a - word, a & b, word | b, a ^ b, shifted, a >> U64(5), ~a, chosen, np.full(8, word)]
        assert np.array_equal(out, np.array(wanted))
        masks = [np.packbits(op(a, b), bitorder="little")[0] for op in (operator.eq, operator.ne, operator.lt)]
        assert list(compare(a, b)) == masks


@kernel
def move(source, places, mask, out):
    where = address_of(source) + (peek_lanes(address_of(places)) << _3)
    prefetch_lanes(where)
    to = address_of(out)
    poke_lanes(to, gather(where, mask))
    poke_lanes(to + U64(64), peek(where))
    scatter(to + U64(128) + (peek_lanes(address_of(places)) << _3), peek(where), mask)


@pytest.mark.parametrize("mask", [0, 1, 0x80, 0xA5, EVERY])
def test_gather_and_scatter_leave_masked_lanes_alone(mask):
    rng = np.random.default_rng(mask)
    source = rng.integers(0, 1 << 64, 16, dtype=U64)
    places, out = rng.permutation(16)[:8].astype(U64), np.zeros(32, U64)
    lanes = np.unpackbits(np.array([mask], np.uint8), bitorder="little").astype(bool)
    move(source, places, U64(mask), out)
    assert np.array_equal(out[:8], np.where(lanes, source[places], 0))
    assert np.array_equal(out[8:16], source[places])
    wanted = np.zeros(16, U64)
    wanted[places[lanes]] = source[places[lanes]]
    assert np.array_equal(out[16:], wanted)


@kernel
def read_from(base, mask):
    return gather(spread(base), mask) == U64(7)


def test_a_masked_lane_reads_no_memory():
    word = np.array([7], U64)
    assert read_from(U64(0), U64(0)) == 0  # address 0 would fault
    assert read_from(U64(host_address(word)), U64(0x21)) == 0x21


@kernel
def lowest(mask):
    return first_lane(mask)


def test_the_first_lane_is_the_lowest_bit():
    assert [lowest(U64(mask)) for mask in (1, 0x80, 0xA0, 0xFF)] == [0, 7, 5, 0]

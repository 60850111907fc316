"""The kernels' views of memory answer as PhysicalMemory and WordMemory do, on every address around every edge."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptwalk.arch.errors import BusError, InputError
from ptwalk.mmu.kernels.access import change_bits, load, prefetch, store
from ptwalk.mmu.kernels.jit import kernel
from ptwalk.mmu.kernels.views import chunk_view, flat_view, memory_view, words_view
from ptwalk.mmu.memory import PhysicalMemory, WordMemory

U64 = np.uint64


@kernel
def load_all(view, cases, pas, ok, values):
    for k in range(pas.size):
        prefetch(view, cases[k], pas[k])
        ok[k], values[k] = load(view, cases[k], pas[k])


@kernel
def store_all(view, cases, pas, values, ok):
    for k in range(pas.size):
        ok[k] = store(view, cases[k], pas[k], values[k])


@kernel
def change_all(view, cases, pas, set, clear, ok):
    for k in range(pas.size):
        ok[k] = change_bits(view, cases[k], pas[k], set, clear)


def loads(view, pas, cases=None):
    pas = np.array(pas, U64)
    cases = np.zeros(len(pas), U64) if cases is None else np.array(cases, U64)
    ok, values = np.zeros(len(pas), bool), np.full(len(pas), 99, U64)
    load_all(view, cases, pas, ok, values)
    return list(zip(ok.tolist(), values.tolist(), strict=True))


def expected(memory, pas):
    result = []
    for pa in pas:
        try:
            result.append((True, memory.read_uint(pa)))
        except BusError:
            result.append((False, 0))
    return result


def many_banks(seed):
    """Banks of odd sizes and places, some adjoining, some far away, some with bytes off their natural alignment."""
    rng = random.Random(seed)
    memory, pa = PhysicalMemory(), 0
    for _ in range(rng.randrange(2, 30)):
        gap = rng.choice([0, 8, 4096, 3 << 20, 1 << 33, 1 << 45])
        size = rng.choice([1, 7, 8, 12, 4096, 4104, 2 << 20, 5 << 20, (4 << 20) + 4096])
        pa = pa + gap & ~7
        backing = memoryview(bytearray(size + 8))[rng.choice([0, 0, 3]) :][:size]
        backing[: min(size, 64)] = rng.randbytes(min(size, 64))
        backing[size - min(size, 64) :] = rng.randbytes(min(size, 64))
        memory.add_bytes(pa, backing)
        pa = pa + size + 7 & ~7
    return memory


def edges(memory):
    pas = {0, 8, 1 << 40, 1 << 55, (1 << 56) - 8, 1 << 63, (1 << 64) - 8}
    for bank in memory.banks:
        for edge in (bank.start, bank.end & ~7, bank.start + 0x200000 & ~0x1FFFFF):
            pas |= {edge + d for d in (-16, -8, 0, 8, 16) if edge + d >= 0}
    return sorted(pas)


@pytest.mark.parametrize("seed", range(40))
def test_chunk_view_reads_what_the_memory_holds(seed):
    memory = many_banks(seed)
    pas = edges(memory)
    assert loads(chunk_view(memory), pas) == expected(memory, pas)


@pytest.mark.parametrize("start", [0, 0x40000000])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 4096, 1 << 30])
def test_flat_view_reads_what_the_memory_holds(size, start):
    memory = PhysicalMemory()
    memory.add_ram(start, size)
    if size >= 8:
        memory.write_uint(start + (size & ~7) - 8, 0xFEDCBA9876543210)
    pas = edges(memory)
    assert loads(flat_view(memory), pas) == expected(memory, pas)


@pytest.mark.parametrize("build", [flat_view, chunk_view])
@pytest.mark.parametrize("shift", [0, 3])
def test_stores_reach_the_memory(build, shift):
    memory = PhysicalMemory()
    memory.add_bytes(0x1000, memoryview(bytearray(8192 + shift))[shift:])
    pas, ok = np.array([0x1000, 0x2FF8, 0x3000, 0xFF8], U64), np.zeros(4, bool)
    values = np.array([1 << 63 | 1, 2, 3, 4], U64)
    view = build(memory)
    store_all(view, np.zeros(4, U64), pas, values, ok)
    assert ok.tolist() == [True, True, False, False]
    assert (memory.read_uint(0x1000), memory.read_uint(0x2FF8)) == (1 << 63 | 1, 2)
    change_all(view, np.zeros(4, U64), pas, U64(0x30), U64(1), ok)
    assert ok.tolist() == [True, True, False, False]
    assert (memory.read_uint(0x1000), memory.read_uint(0x2FF8)) == (1 << 63 | 0x30, 0x32)


def test_words_belong_to_their_case_and_unlisted_words_read_zero():
    cases = [{0x2000: 5, 0x1000: 6}, {}, {0x1000: 7, 1 << 51: 1 << 63}]
    off = np.cumsum([0] + [len(c) for c in cases])
    view = words_view(off, [pa for c in cases for pa in c], [v for c in cases for v in c.values()])
    asked = [(i, pa) for i in range(3) for pa in (0, 0x1000, 0x2000, 1 << 51, (1 << 64) - 8)]
    got = loads(view, [pa for _, pa in asked], [i for i, _ in asked])
    assert got == [(True, WordMemory(cases[i]).read_uint(pa)) for i, pa in asked]
    ok = np.zeros(2, bool)
    store_all(view, np.array([2, 1], U64), np.array([0x1000, 0x1000], U64), np.array([8, 9], U64), ok)
    assert ok.tolist() == [True, False]
    assert loads(view, [0x1000] * 3, [0, 1, 2]) == [(True, 6), (True, 0), (True, 8)]


def test_the_memory_outlives_its_owner_while_a_view_holds_it():
    def view_of(n):
        memory = PhysicalMemory()
        for start in range(0, n << 30, 1 << 30):
            memory.add_ram(start, 4096)
            memory.write_uint(start + 8, start + 1)
        return memory_view(memory)

    for n in (1, 2):
        view = view_of(n)
        assert loads(view, [8]) == [(True, 1)]


def test_refusals():
    memory = PhysicalMemory()
    with pytest.raises(InputError, match=r"a flat view needs exactly one bank of memory \(0x0\)"):
        flat_view(memory)
    assert loads(chunk_view(memory), [0, 1 << 55]) == [(False, 0)] * 2
    memory.add_ram(0, 4096).data = memoryview(bytes(4096))
    with pytest.raises(InputError, match="this bank is read-only"):
        memory_view(memory)

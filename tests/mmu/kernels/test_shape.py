"""The compiled shape: no reference counting inside the loops, which costs more than all the rest of a walk."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numba import njit, typeof

from ptwalk.mmu.kernels import flat_view, translate_many
from ptwalk.mmu.kernels.fast import forms
from ptwalk.mmu.kernels.plans import plan_for
from ptwalk.mmu.walk import Access
from ptwalk.rmap import bulk_kernels

from .hostile import tables


def counted_in_loops(kernel, *arguments):
    """How many references the optimized function takes after its first branch: none belong into a loop."""
    fresh = njit(error_model="numpy", nogil=True)(kernel.py_func)  # compiled here, since cached code shows nothing
    fresh.compile(tuple(typeof(argument) for argument in arguments))
    (code,) = fresh.inspect_llvm().values()
    name = kernel.py_func.__name__
    heads = [part for part in code.split("\ndefine ")[1:] if name in part.split("(")[0]]
    bodies = [part for part in heads if "cpython" not in part.split("(")[0]]
    assert bodies, "the function is not in its own code"
    loops = [body[body.find("\n  br ") :] for body in bodies]
    return sum(len(re.findall(r"call void @NRT_incref", body)) for body in loops)


@pytest.mark.parametrize("form", ["single", "pipelined", "cached", "ordered"])
def test_forms_count_no_references_in_their_loops(form):
    memory, regime = tables("x86-4level", 1)
    faults = translate_many(memory, regime, []).faults
    shape, plan = plan_for(regime, Access(), faults, update=True)
    words = np.zeros(4, np.uint64)
    assert counted_in_loops(getattr(forms(shape), form), flat_view(memory), plan, words, words, words) == 0


def test_bulk_operations_count_no_references_in_their_loops():
    word, words, pages = np.uint64(1), np.zeros(4, np.uint64), np.zeros(4, np.uint32)
    arguments = words, words, (word, word, word), word, pages, (word,) * 5, word, word, True, word
    assert counted_in_loops(bulk_kernels.fork_range, *arguments) == 0


def test_the_count_notices_references_in_a_loop():
    @njit
    def looping(first, second, n):
        chosen = first
        for k in range(n):
            if second[k] > first[k]:
                chosen = second
            elif first[k] > 7:
                chosen = first
        return chosen

    words = np.zeros(4, np.uint64)
    assert counted_in_loops(looping, words, words, 4) > 0

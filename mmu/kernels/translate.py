"""`translate_many`: a batch of addresses through one regime, by the form that suits it."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...arch.errors import InputError
from ..memory import PhysicalMemory
from ..regime import Regime
from ..walk import Access
from .batch import LINE, Batch, empty_words
from .fast import CACHE_SLOTS, forms
from .format import Format, Plan
from .jit import per_object
from .plans import plan_for
from .steps import REDO
from .views import MemoryView, View, WordsView, memory_view

FORMS = ("auto", "single", "pipelined", "cached", "ordered", "full")
SAMPLE = 4096
REGION_SHIFT = 21
FEW = 1 << 12  # addresses that the full rules translate before a plan for the fast forms is learned
LEAST_SHARE = 1 << 16  # addresses a thread, below which starting one costs more than it saves


def translate_many(
    memory: PhysicalMemory | MemoryView,
    regime: Regime,
    vas: ArrayLike,
    access: Access | None = None,
    *,
    update: bool = False,
    form: str = "auto",
    threads: int = 1,
) -> Batch:
    """Translate many virtual addresses (uint64) as `regime.walk` would translate each; a fault is a result.

    `update` writes accessed and dirty bits back, safely from several threads. `form` is one of `FORMS`; all give the
    same answers. InputError for an unknown form.

    >>> from ptwalk.mmu.machine import regime_from_registers
    >>> ram = PhysicalMemory()
    >>> _ = ram.add_ram(0, 1 << 20)
    >>> for pa, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x87)):
    ...     ram.write_uint(pa, entry)
    >>> batch = translate_many(ram, regime_from_registers("x86_64", {"CR3": 0x1000}, {}), [0x1234, 0x20_0000])
    >>> batch.ok.tolist(), hex(batch.pa[0]), batch.page_shift.tolist(), batch.faults[batch.fault[1]]
    ([True, False], '0x1234', [21, 0], '#PF')
    """
    if form not in FORMS:
        raise InputError(f"no such form (there are: {', '.join(FORMS)})", field="form", value=form)
    access = access or Access()
    addresses = np.ascontiguousarray(vas, np.uint64)
    view: View = memory_view(memory) if isinstance(memory, PhysicalMemory) else memory
    rules = _full_rules(regime.arch)
    pa, info = empty_words(len(addresses)), empty_words(len(addresses))
    if form == "auto" and len(addresses) < FEW:
        form = "full"
    fast = None
    if form != "full" and not isinstance(view, WordsView):
        fast = _plan(regime, access, rules.faults, update)
    if fast is None:
        rules.translate(view, regime, addresses, access, update, pa, info)
    else:
        chosen = choose(addresses) if form == "auto" else form
        if _run(fast, chosen, view, addresses, pa, info, threads, update):
            rest = np.flatnonzero(info == REDO)
            some_pa, some_info = np.empty(len(rest), np.uint64), np.empty(len(rest), np.uint64)
            rules.translate(view, regime, addresses[rest], access, update, some_pa, some_info)
            pa[rest], info[rest] = some_pa, some_info
    return Batch(addresses, pa, info, rules.faults)


def choose(vas: NDArray[np.uint64]) -> str:
    """The form that suits a batch, judged by a sample of its addresses: how many regions, and how often they change.

    >>> choose(np.arange(0, 1 << 30, 4096, dtype=np.uint64))
    'ordered'
    """
    regions = vas[: SAMPLE // 2] >> np.uint64(REGION_SHIFT)
    if len(vas) > SAMPLE:
        regions = np.concatenate([regions, vas[-SAMPLE // 2 :] >> np.uint64(REGION_SHIFT)])
    if 8 * int(np.count_nonzero(regions[1:] != regions[:-1])) < len(regions):
        return "ordered"
    return "cached" if len(np.unique(regions)) <= CACHE_SLOTS else "pipelined"


@per_object
def _plan(regime: Regime, access: Access, faults: tuple[str, ...], update: bool) -> tuple[Format, Plan] | None:
    return plan_for(regime, access, faults, update=update)


class _Rules(NamedTuple):
    """An architecture's full rules: fault names by kind, and what fills `pa` and `info` for a view."""

    faults: tuple[str, ...]
    translate: Callable[[View, Regime, NDArray[np.uint64], Access, bool, NDArray[np.uint64], NDArray[np.uint64]], None]


@functools.cache
def _full_rules(arch: str) -> _Rules:
    module = importlib.import_module(f"..{arch}.kernels", __package__)  # large: loaded for its own architecture only
    return _Rules(module.FAULTS, module.translate)


def _run(
    fast: tuple[Format, Plan],
    form: str,
    view: Any,
    vas: NDArray[np.uint64],
    pa: NDArray[np.uint64],
    info: NDArray[np.uint64],
    threads: int,
    update: bool,
) -> bool:
    """Run a form, in shares where threads may help; whether it left addresses to the full rules."""
    shape, plan = fast
    kernel = getattr(forms(shape), form)
    shares = min(threads, max(1, len(vas) // LEAST_SHARE))
    if shares == 1 or (update and not view.aligned):
        return bool(kernel(view, plan, vas, pa, info))
    edges = [*(len(vas) * i // shares // LINE * LINE for i in range(shares)), len(vas)]
    with ThreadPoolExecutor(shares) as pool:
        parts = itertools.pairwise(edges)
        left = pool.map(lambda part: kernel(view, plan, *(x[slice(*part)] for x in (vas, pa, info))), parts)
        return any(list(left))

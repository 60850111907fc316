"""Vector cases through the compiled walker: the same `o_*` columns as the reference walker gives, as arrays."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...arch.arm64.faults import ISS_DATA_ABORT
from ...arch.errors import RegisterError
from ..kernels.views import words_view
from . import attributes, entries, kernels, rows
from .attributes import MemAttrs
from .cases import COLUMNS, CaseFile
from .kernel_terms import SLOT, SLOTS

_OFF = {
    rows.OFF_DEFAULT: attributes.DEFAULT_CACHEABLE,
    rows.OFF_FETCH_CACHED: attributes.OFF_FETCH_CACHED,
    rows.OFF_NC: attributes.NORMAL_NC,
    rows.OFF_DEVICE: attributes.OFF_DEVICE,
}


class KernelRun(NamedTuple):
    """`columns` by name for all cases, `taken` which of them the kernel took, `reasons` why not, per case."""

    columns: dict[str, NDArray[Any]]
    taken: NDArray[np.bool_]
    reasons: list[str]
    words: NDArray[np.uint64]  # the memory words afterwards, in the file's order


@functools.lru_cache(maxsize=1 << 16)
def attributes_of(recipe: int) -> MemAttrs:
    """The memory attributes for the ingredients that the kernels collect (`_stage1_recipe`, `stage2_recipe`)."""
    off = recipe >> 10 & 7
    if off:
        first = _OFF[off]
    else:
        first = attributes.decode_mair(recipe & 0xFF, attributes.decode_shareability(recipe >> 8 & 3))
        if recipe >> 13 & 1:
            first = attributes.NORMAL_NC._replace(xs=first.xs)
        first = first.effective()
    if not recipe >> 14 & 1:
        return first
    memattr, fnxs = recipe >> 15 & 15, recipe >> 21 & 1
    shareability = attributes.decode_shareability(recipe >> 19 & 3)
    forced, uncached = recipe >> 22 & 1, recipe >> 23 & 1
    if forced:
        second = attributes.forced_write_back(first, memattr, shareability, fnxs)
    else:
        second = attributes.decode_stage2(memattr, shareability, fnxs)
    if uncached:
        second = attributes.NORMAL_NC._replace(xs=second.xs)
    return second if forced else attributes.combine(first, second)


def run(file: CaseFile) -> KernelRun:
    """All cases of a file that the kernel takes."""
    n = len(file)
    table, taken, reasons = np.zeros((n, len(rows.COLUMNS)), np.uint64), np.zeros(n, np.bool_), [""] * n
    for i in range(n):
        case = file.case(i)
        regime = case.system.regime(case.access.level)
        try:
            reasons[i] = rows.not_taken(case.system, regime, case.va, case.access)
            if not reasons[i]:
                table[i] = rows.pack(case.system, regime, case.va, case.access)
        except RegisterError as error:
            reasons[i] = str(error)
        taken[i] = not reasons[i]
    values = file.arrays["mem_val"].astype(np.uint64)
    view = words_view(file.arrays["mem_off"], file.arrays["mem_pa"], values)
    out = np.zeros((n, len(SLOTS)), np.uint64)
    vas = file.arrays["va"].astype(np.uint64)
    kernels.translate_cases(view, table, vas, taken, True, out)
    return KernelRun(_columns(table, out), taken, reasons, _in_file_order(file, view.values))


def _in_file_order(file: CaseFile, ordered: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words of the view, put back in the order of the file."""
    offsets = file.arrays["mem_off"].astype(np.int64)
    case = np.repeat(np.arange(len(file)), np.diff(offsets))
    order = np.lexsort((file.arrays["mem_pa"], case))
    words = np.empty_like(ordered)
    words[order] = ordered
    return words


def _columns(table: NDArray[np.uint64], out: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    n = len(out)
    columns: dict[str, NDArray[Any]] = {name: np.zeros(n, np.int64) for name in COLUMNS}

    def slot(name: str) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = out[:, SLOT[name]]
        return found

    faulted = slot("fault") != 0
    columns["o_nreads"], columns["o_nwrites"] = slot("reads"), slot("writes")
    columns["o_ipa_valid"], columns["o_ipa"] = slot("ipa_valid"), np.where(slot("ipa_valid") != 0, slot("ipa"), 0)
    for stage, prefix in (("1", ""), ("2", "s2_")):
        columns |= _leaf_columns(table, out, stage, prefix)
    columns |= _fault_columns(table, out, faulted)
    columns["o_pa"] = np.where(faulted, 0, slot("pa"))
    columns |= _attribute_columns(slot("recipe"), faulted)
    return columns


def _leaf_columns(table: NDArray[np.uint64], out: NDArray[np.uint64], stage: str, prefix: str) -> dict[str, Any]:
    valid = out[:, SLOT[f"leaf{stage}"]] != 0
    level = out[:, SLOT[f"level{stage}"]].astype(np.int64) - 1
    joined, raw = out[:, SLOT[f"contig{stage}"]], out[:, SLOT[f"raw{stage}"]]
    granule, stride = (table[:, rows.INDEX[prefix + name]].astype(np.int64) for name in ("granule", "stride"))
    name = f"o_s{stage}"
    found = {
        f"{name}_leaf_valid": valid,
        f"{name}_leaf_level": level,
        f"{name}_contig": joined > 0,
        f"{name}_contig_log2": joined.astype(np.int64),
        f"{name}_size_log2": granule + (3 - level) * stride,
    }
    if stage == "1":
        unprivileged = table[:, rows.INDEX["unprivileged"]] != 0
        found["o_s1_ng"] = (raw & np.uint64(entries.NG) != 0) & unprivileged
        found["o_s1_gp"] = raw & np.uint64(entries.GP) != 0
    return {key: np.where(valid, value, 0) for key, value in found.items()}


def _fault_columns(table: NDArray[np.uint64], out: NDArray[np.uint64], faulted: NDArray[np.bool_]) -> dict[str, Any]:
    fault, level = out[:, SLOT["fault"]], out[:, SLOT["level"]]
    _, codes = kernels.code_tables()
    iss = codes[fault.astype(np.int64), level.astype(np.int64)].astype(np.int64)
    fetch = table[:, rows.INDEX["fetch"]] != 0
    maintenance = (table[:, rows.INDEX["cache_op"]] | table[:, rows.INDEX["at"]]) != 0
    write = out[:, SLOT["write"]] != 0
    iss |= np.where(~fetch & (maintenance | write), ISS_DATA_ABORT["WnR"].mask, 0)
    iss |= np.where(~fetch & maintenance, ISS_DATA_ABORT["CM"].mask, 0)
    iss |= np.where(out[:, SLOT["s1ptw"]] != 0, ISS_DATA_ABORT["S1PTW"].mask, 0)
    found = {
        "o_fault": fault,
        "o_level": level.astype(np.int64) - 1,
        "o_secondstage": out[:, SLOT["stage2"]],
        "o_s2fs1walk": out[:, SLOT["s1ptw"]],
        "o_write": write,
        "o_iss": iss,
        "o_fault_ipa": np.where(out[:, SLOT["stage2"]] != 0, out[:, SLOT["fault_ipa"]], 0),
    }
    return {key: np.where(faulted, value, 0) for key, value in found.items()}


def _attribute_columns(recipes: NDArray[np.uint64], faulted: NDArray[np.bool_]) -> dict[str, Any]:
    """The attribute columns; each distinct recipe is decoded once."""
    distinct, which = np.unique(recipes, return_inverse=True)
    names = [f"o_{domain}_{part}" for domain in ("inner", "outer") for part in ("attrs", "hints", "transient")]
    names += ["o_shareability", "o_xs", "o_memtype", "o_device"]
    table = np.zeros((len(distinct), len(names)), np.int64)
    for k, recipe in enumerate(distinct.tolist()):
        attrs = attributes_of(recipe)
        device = attrs.device >= 0
        caches = [0] * 6 if device else [int(value) for cache in (attrs.inner, attrs.outer) for value in cache]
        table[k] = [*caches, int(attrs.shareability), attrs.xs, int(device), max(attrs.device, 0)]
    return {name: np.where(faulted, 0, table[which.ravel(), k]) for k, name in enumerate(names)}

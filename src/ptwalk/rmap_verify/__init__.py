"""`ptwalk rmap verify`: what a real kernel's page tables determine under an accounting model, against its own words.

A capture's folios come from kpageflags, its mappings from the page tables alone, entry by entry through rmap; then
every figure that tables and folios determine is compared with what that kernel printed at each checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..loaders.capture import Capture
from ..mmu.progress import tracked
from .adopted import MODELS, Adopted, Kernel
from .compare import Comparison, compare, kpagecount_agreement
from .report import RmapVerifyReport
from .rules import explain

__all__ = ["RmapVerifyReport", "verify", "verify_capture"]


def verify(path: str | Path, checkpoints: Collection[int] | None = None) -> RmapVerifyReport:
    """Verify a capture (directory or .tar.xz), all checkpoints or some; InputError where it cannot be read."""
    return verify_capture(Capture(path), checkpoints)


def verify_capture(capture: Capture, checkpoints: Collection[int] | None = None) -> RmapVerifyReport:
    """Verify an open capture."""
    kernel = Kernel.of(capture)
    numbers = [number for number in capture.checkpoints if checkpoints is None or number in checkpoints]
    adopted = [Adopted(capture.checkpoint(number), kernel) for number in tracked(numbers, "checkpoints adopted")]
    model, evidence = choose_model(kernel, adopted)
    report = RmapVerifyReport(capture.path.name, kernel.release, model, evidence, numbers)
    for one in tracked(adopted, "checkpoints compared"):
        _add(report, compare(one, one.model(model)))
    return report


def choose_model(kernel: Kernel, adopted: Collection[Adopted]) -> tuple[str, list[str]]:
    """The model this kernel was built with, and the evidence in words: its configuration, else its kpagecount."""
    evidence, agreement = [], {}
    for name in MODELS:
        counts = [kpagecount_agreement(one, one.model(name)) for one in adopted]
        agreement[name] = sum(right for right, _ in counts)
        compared = sum(n for _, n in counts)
        evidence.append(f"kpagecount of {agreement[name]} of {compared} frames of large folios is as in {name}")
    options = {"PAGE_MAPCOUNT": "precise", "NO_PAGE_MAPCOUNT": "no-page-mapcount"}
    for option, name in options.items():
        if kernel.config.get(option) == "y":
            return name, [f"/proc/config.gz: CONFIG_{option}=y, so the model is {name}", *evidence]
    if kernel.version < (6, 15):
        return "precise", [f"Linux before 6.15 counts precisely ({kernel.release})", *evidence]
    best = max(agreement, key=lambda name: agreement[name])
    return best, [f"no configuration was captured: the model is {best}, whose kpagecount fits best", *evidence]


def _add(report: RmapVerifyReport, found: Comparison) -> None:
    rules = explain(found)
    report.compared.update(found.counts)
    report.not_compared |= found.skipped
    for difference in found.differences:
        if difference in rules:
            report.explained[rules[difference], difference.field] += 1
        else:
            report.unexplained.append(difference)

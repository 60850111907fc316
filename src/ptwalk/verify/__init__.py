"""Walk everything in a capture and compare it with what the captured kernel said of itself."""

from __future__ import annotations

from pathlib import Path

from ..loaders.capture import Capture, Checkpoint
from ..loaders.capture_machine import machine_of
from ..mmu.progress import tracked
from .compare import ProcessCheck
from .report import Disagreement, VerifyReport
from .rules import RULES
from .tlb import compare_tlb

__all__ = ["RULES", "Disagreement", "VerifyReport", "verify"]


def verify(path: str | Path) -> VerifyReport:
    """Compare every pagemap word of every process at every checkpoint of a capture with its page tables.

    Compared are present with PFN, swap with type and offset, soft-dirty, uffd-wp and guard; also sampled walks, both
    roots under page-table isolation, and QEMU's `info tlb` where the capture has it. InputError for unreadable files.
    """
    capture = Capture(path)
    report = VerifyReport(str(capture.path), capture.arch, capture.kernel, capture.checkpoints)
    checkpoints = [capture.checkpoint(number) for number in capture.checkpoints]
    for i, checkpoint in enumerate(tracked(checkpoints, "checkpoints")):
        machine = machine_of(checkpoint)
        for tag in tracked(checkpoint.tags, f"processes of checkpoint {checkpoint.number}"):
            following = next((c for c in checkpoints[i + 1 :] if _same_process(checkpoint, c, tag)), None)
            ProcessCheck(checkpoint, machine, tag, following).run(report)
        _check_user_roots(checkpoint, report)
        missing = sorted(checkpoint.roots.keys() - set(checkpoint.tags))
        report.notes += [f"cp{checkpoint.number}: {tag} has no pagemap" for tag in missing]
    report.disagreements += compare_tlb(capture, report.tlb, report.notes)
    return report


def _same_process(one: Checkpoint, other: Checkpoint, tag: str) -> bool:
    return tag in other.tags and one.roots[tag].pid == other.roots[tag].pid


def _check_user_roots(checkpoint: Checkpoint, report: VerifyReport) -> None:
    """A root that a CPU used in user mode has to be one of the process's own."""
    for tag, root in checkpoint.roots.items():
        known = {root.pgd_phys, *root.matching}
        for seen in root.seen_in_user_mode:
            if seen in known:
                report.walker["roots seen in user mode"] += 1
            else:
                text = f"roots {', '.join(f'{pa:#x}' for pa in sorted(known))}"
                report.disagreements.append(
                    Disagreement(checkpoint.number, tag, seen, text, "a CPU ran in user mode with another root")
                )

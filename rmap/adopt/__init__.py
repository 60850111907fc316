"""Adopt what a running kernel has built: folios from kpageflags, and every entry of its page tables through the hook.

Nothing of the counters is taken over: a folio starts unmapped, and each entry of each process adds its mapping.
"""

from __future__ import annotations

from .frames import KernelFacts, KernelFrames
from .observer import EntryObserver, installed
from .process import AdoptedProcess

__all__ = ["AdoptedProcess", "EntryObserver", "KernelFacts", "KernelFrames", "adopt"]


def adopt(process: AdoptedProcess, frames: KernelFrames) -> None:
    """Install every entry of a process through the hook, table by table."""
    observer = EntryObserver(process, frames)
    for batch in installed(process):
        observer(batch)

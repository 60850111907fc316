"""/proc/kpagecount and /proc/kpageflags: one u64 for each frame."""

from __future__ import annotations

from array import array

from ...arch.linux_proc import KPF
from ..figures import kpagecount
from ..folio import Flags, Folio, Kind
from ..models import Model
from .inputs import Frames

FOLIO_FLAGS = {
    Flags.LOCKED: "LOCKED",
    Flags.REFERENCED: "REFERENCED",
    Flags.UPTODATE: "UPTODATE",
    Flags.DIRTY: "DIRTY",
    Flags.LRU: "LRU",
    Flags.ACTIVE: "ACTIVE",
    Flags.WRITEBACK: "WRITEBACK",
    Flags.RECLAIM: "RECLAIM",
    Flags.SWAPBACKED: "SWAPBACKED",
    Flags.SWAPCACHE: "SWAPCACHE",
    Flags.UNEVICTABLE: "UNEVICTABLE",
    Flags.MLOCKED: "MLOCKED",
    Flags.HWPOISON: "HWPOISON",
    Flags.PRIVATE: "PRIVATE",
    Flags.IDLE: "IDLE",
}
"""Folio flags that kpageflags shows (PG_young is not among them)."""


def kpageflags(folio: Folio, page: int, model: Model) -> int:
    """stable_page_flags of one page: MMAP tells whether any page of the folio is mapped, in every model.

    >>> from ..levels import Rules
    >>> from ..models import Precise
    >>> model, folio = Precise(Rules()), Folio(2, Kind.ANON, flags=Flags.SWAPBACKED)
    >>> model.adopt(folio)
    >>> KPF.flags(kpageflags(folio, 1, model))
    'ANON|SWAPBACKED|COMPOUND_TAIL|THP'
    """
    names = [name for flag, name in FOLIO_FLAGS.items() if flag in folio.flags]
    if model.mapcount(folio):
        names.append("MMAP")
    if folio.is_anon:
        names.append("ANON")
    if folio.kind is Kind.KSM:
        names.append("KSM")
    if folio.is_large:
        names.append("COMPOUND_TAIL" if page else "COMPOUND_HEAD")
        names.append("HUGE" if folio.kind.is_hugetlb else "THP")
    return KPF.mask(*names)


def kpageflags_words(frames: Frames, model: Model, pfn: int, nr_frames: int) -> array[int]:
    """kpageflags of a range of frames; NOPAGE where no folio is known."""
    words = array("Q", [KPF.mask("NOPAGE")]) * nr_frames
    for at in range(nr_frames):
        folio = frames.folio(pfn + at)
        if folio is not None:
            words[at] = kpageflags(folio, pfn + at - folio.pfn, model)
    return words


def kpagecount_words(frames: Frames, model: Model, pfn: int, nr_frames: int) -> array[int]:
    """kpagecount of a range of frames; 0 where no folio is known."""
    words = array("Q", [0]) * nr_frames
    for at in range(nr_frames):
        folio = frames.folio(pfn + at)
        if folio is not None:
            words[at] = kpagecount(model, folio, pfn + at - folio.pfn)
    return words

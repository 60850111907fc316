"""Steps that only look: `probe` one page, `show` a file of /proc, both as each model's kernel would say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..arch.linux_proc import KPF
from ..rmap.figures import kpagecount
from ..rmap.models import MODELS, Model
from ..rmap.space.process import Process
from ..rmap.space.system import System
from ..rmap.views import meminfo, numa_maps, pagemap, smaps
from ..rmap.views.kpage import kpageflags
from ..rmap.views.rules import AS_MEANT
from .operands import locate, process_of
from .script import Words


@dataclass
class Probe:
    """`probe A v page`: what pagemap, kpagecount and kpageflags say of one page under each model."""

    page: str
    models: dict[str, dict[str, str | int]]


@dataclass
class View:
    """`show FILE [PROCESS]`: the file's text under each model that counts all folios in it."""

    file: str
    models: dict[str, str]


def probe_page(system: System, words: Words) -> Probe:
    """Look at one mapped page."""
    process, leaf, va = locate(system, words)
    words.done()
    folio = leaf.folio
    page = leaf.page + (va - leaf.va) // system.page_size
    models: dict[str, dict[str, str | int]] = {}
    for name in MODELS:
        model = system.acct.models[name]
        if model.of(folio).refused is None:
            word = pagemap.PagemapView(process, system, model, AS_MEANT).words(va, va + system.page_size)[0]
            models[name] = {
                "pagemap": pagemap.decode(word),
                "kpagecount": kpagecount(model, folio, page),
                "kpageflags": KPF.flags(kpageflags(folio, page, model)),
            }
    return Probe(f"{process.name} {va:#x}: page {page} of {system.name_of(folio)}", models)


_OF_PROCESS: dict[str, Callable[[Process, System, Model], str]] = {
    "smaps": lambda process, system, model: smaps.text(process, system, model, AS_MEANT),
    "smaps_rollup": lambda process, system, model: smaps.rollup_text(process, system, model, AS_MEANT),
    "numa_maps": lambda process, system, model: numa_maps.text(process, system, model),
}
FILES = (*_OF_PROCESS, "meminfo")
"""What `show` can show."""


def show_file(system: System, words: Words) -> View:
    """Print a file of /proc in the kernel's own form."""
    name = words.choice("the file", FILES)
    if name == "meminfo":
        words.done()
        return View("/proc/meminfo", {m.name: meminfo.text(m) for m in _counting(system, list(system.folios))})
    process = process_of(system, words)
    words.done()
    mapped = {leaf.folio for vma in process.vmas() for leaf in process.leaves(vma.start, vma.end)}
    models = _counting(system, [system.name_of(folio) for folio in mapped])
    texts = {model.name: _OF_PROCESS[name](process, system, model) for model in models}
    return View(f"/proc/{process.name}/{name}", texts)


def _counting(system: System, folios: list[str]) -> list[Model]:
    """The models that refused none of these folios."""
    models = system.acct.models.values()
    return [model for model in models if not any(model.of(system.folios[name]).refused for name in folios)]

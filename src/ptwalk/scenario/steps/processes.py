"""Steps about whole processes: fork and exit, and the pins that fork minds."""

from __future__ import annotations

from collections.abc import Callable

from ...rmap.folio import Folio
from ...rmap.operations import unmap
from ...rmap.operations.fork import fork
from ...rmap.space.process import Process
from ...rmap.space.system import System
from ..operands import locate, process_of, require_present
from ..script import Words


def _fork(system: System, words: Words) -> list[str]:
    src, name = process_of(system, words), words.name("process")
    if name in system.processes:
        raise words.error("a process of this name exists already", name)
    return fork(system, src, name, words.flag("files"))


def _exit(system: System, words: Words) -> list[str]:
    return unmap.exit_mm(system, process_of(system, words))


def _pins(system: System, words: Words) -> tuple[Process, Folio, int]:
    process, leaf, _ = locate(system, words)
    require_present(system, words, leaf)
    n = words.number("the number of pins") if words.left else 1
    if not 0 < n < 1 << 20:
        raise words.error("not a number of pins", n)
    return process, leaf.folio, n


def _pin(system: System, words: Words) -> list[str]:
    process, folio, n = _pins(system, words)
    system.acct.pin(folio, process.mm, n)
    return []


def _unpin(system: System, words: Words) -> list[str]:
    _, folio, n = _pins(system, words)
    system.acct.unpin(folio, n)
    return []


STEPS: dict[str, Callable[[System, Words], list[str]]] = {"fork": _fork, "exit": _exit, "pin": _pin, "unpin": _unpin}

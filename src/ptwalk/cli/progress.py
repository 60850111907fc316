"""The progress bar on stderr: for anything over a second, on a terminal, and gone when the work is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..mmu.progress import listeners

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY = 1.0
"""Seconds of silence before a bar."""


class Bar:
    """A listener that begins to draw after DELAY; rich is loaded only then."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        ended = done == total
        if now - self._since < DELAY or (now - self._drawn < 0.1 and not ended):
            return
        self._drawn = now
        progress = self._progress or self._begin()
        if what not in self._tasks:
            self._tasks[what] = progress.add_task(what, total=total)
        progress.update(self._tasks[what], completed=done, total=total)

    def _begin(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # what a command prints goes to stdout untouched
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._progress.start()
        return self._progress

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def shown() -> Iterator[None]:
    """Show how far the work inside has come, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    bar = Bar()
    listeners.append(bar)
    try:
        yield
    finally:
        listeners.remove(bar)
        bar.close()

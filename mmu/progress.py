"""How far long work has come: outer loops say so, and whoever wants to know listens.

Nobody listens by default, and then a loop pays one call of an empty generator a step. The command line shows a bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None if that is not known)."""

listeners: list[Listener] = []
"""Who is told; a listener must be quick."""


def tracked(items: Iterable[T], what: str, total: int | None = None, every: int = 1) -> Iterator[T]:
    """The items, telling the listeners after each `every` of them; the total is the items' length where they have one.

    >>> listeners.append(lambda what, done, total: print(what, done, total))
    >>> list(tracked("abc", "letters", every=2))
    letters 0 3
    letters 2 3
    letters 3 3
    ['a', 'b', 'c']
    >>> _ = listeners.pop()
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    _tell(what, 0, total)
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % every == 0:
            _tell(what, done, total)
    if done % every:
        _tell(what, done, total)


def _tell(what: str, done: int, total: int | None) -> None:
    for listener in listeners:
        listener(what, done, total)

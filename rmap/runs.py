"""Per-page state of a folio as runs of equal values, so that 262144 pages cost as little as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class PageRuns:
    """One integer for each of nr_pages pages; every operation costs the number of runs it meets, not of pages.

    >>> counts = PageRuns(8)
    >>> counts.add(2, 4, 1)
    >>> counts.add(4, 1, 1)
    >>> list(counts.runs())
    [(0, 2, 0), (2, 2, 1), (4, 1, 2), (5, 1, 1), (6, 2, 0)]
    >>> counts[4], counts.count(0, 8, 0)
    (2, 4)
    """

    __slots__ = ("_starts", "_values", "nr_pages")

    def __init__(self, nr_pages: int, value: int = 0) -> None:
        self.nr_pages = nr_pages
        self._starts = [0]
        self._values = [value]

    def __getitem__(self, page: int) -> int:
        if not 0 <= page < self.nr_pages:
            raise IndexError(f"page {page} is outside a folio of {self.nr_pages} pages")
        return self._values[bisect_right(self._starts, page) - 1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PageRuns):
            return NotImplemented
        return self.key() == other.key()

    def key(self) -> tuple[int, ...]:
        """The content as a hashable tuple: nr_pages, then first page and value of each run."""
        return (self.nr_pages, *self._starts, *self._values)

    def copy(self) -> PageRuns:
        """An independent copy."""
        twin = PageRuns.__new__(PageRuns)
        twin.nr_pages, twin._starts, twin._values = self.nr_pages, self._starts.copy(), self._values.copy()
        return twin

    def runs(self, first: int = 0, n: int | None = None) -> Iterator[tuple[int, int, int]]:
        """Runs `(first page, pages, value)` that cover pages first..first+n-1, cut to that range."""
        end = self.nr_pages if n is None else first + n
        if first < 0 or end > self.nr_pages:
            raise IndexError(f"pages {first}..{end - 1} are not inside a folio of {self.nr_pages} pages")
        at = bisect_right(self._starts, first) - 1
        while first < end:
            stop = min(self._starts[at + 1] if at + 1 < len(self._starts) else self.nr_pages, end)
            yield first, stop - first, self._values[at]
            first, at = stop, at + 1

    def count(self, first: int, n: int, value: int) -> int:
        """How many of the n pages from first on have this value."""
        return sum(pages for _, pages, seen in self.runs(first, n) if seen == value)

    def minimum(self, first: int, n: int) -> int:
        """The smallest value among the n pages from first on."""
        return min(value for _, _, value in self.runs(first, n))

    def any(self, first: int, n: int) -> bool:
        """Whether one of the n pages from first on has a value other than 0."""
        return any(value for _, _, value in self.runs(first, n))

    def fill(self, first: int, n: int, value: int) -> None:
        """Set the n pages from first on to value."""
        low, high = self._cut(first, n)
        self._starts[low:high] = [first]
        self._values[low:high] = [value]
        self._merge(low, low + 1)

    def add(self, first: int, n: int, delta: int) -> None:
        """Add delta to each of the n pages from first on."""
        low, high = self._cut(first, n)
        for at in range(low, high):
            self._values[at] += delta
        self._merge(low, high)

    def _cut(self, first: int, n: int) -> tuple[int, int]:
        """Make runs begin at first and at first+n; the indices of the first run inside and of the first behind."""
        if n <= 0 or first < 0 or first + n > self.nr_pages:
            raise IndexError(f"pages {first}..{first + n - 1} are not inside a folio of {self.nr_pages} pages")
        return self._cut_at(first), self._cut_at(first + n)

    def _cut_at(self, page: int) -> int:
        if page == self.nr_pages:
            return len(self._starts)
        at = bisect_right(self._starts, page) - 1
        if self._starts[at] != page:
            at += 1
            self._starts.insert(at, page)
            self._values.insert(at, self._values[at - 1])
        return at

    def _merge(self, low: int, high: int) -> None:
        """Join equal neighbours at the two edges of the runs low..high-1 (inside, neighbours stay different)."""
        for at in (high, low):
            if 0 < at < len(self._starts) and self._values[at] == self._values[at - 1]:
                del self._starts[at], self._values[at]

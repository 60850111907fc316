"""PageRuns against a plain list."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptwalk.rmap.runs import PageRuns

PAGES = 24
RANGES = st.tuples(st.integers(0, PAGES - 1), st.integers(1, PAGES)).filter(lambda r: r[0] + r[1] <= PAGES)
CHANGES = st.tuples(st.sampled_from(["add", "fill"]), RANGES, st.integers(-2, 3))


@given(st.lists(CHANGES, max_size=30), RANGES, st.integers(-3, 3))
def test_runs_behave_like_a_list(
    changes: list[tuple[str, tuple[int, int], int]], probe: tuple[int, int], v: int
) -> None:
    runs, plain = PageRuns(PAGES), [0] * PAGES
    for name, (first, n), value in changes:
        getattr(runs, name)(first, n, value)
        for page in range(first, first + n):
            plain[page] = value if name == "fill" else plain[page] + value
        assert [runs[page] for page in range(PAGES)] == plain
        values = [value for _, _, value in runs.runs()]
        assert all(a != b for a, b in pairwise(values)), "equal neighbours are one run"
    first, n = probe
    part = plain[first : first + n]
    assert [value for _, pages, value in runs.runs(first, n) for _ in range(pages)] == part
    assert runs.count(first, n, v) == part.count(v)
    assert runs.minimum(first, n) == min(part)
    assert runs.any(first, n) == any(part)
    assert runs.copy() == runs
    assert (PageRuns(PAGES) == runs) == (not any(plain))


def test_a_range_outside_is_refused() -> None:
    runs = PageRuns(4)
    for first, n in ((3, 2), (-1, 2), (0, 0), (0, 5)):
        with pytest.raises(IndexError, match="not inside a folio of 4 pages"):
            runs.fill(first, n, 1)
    with pytest.raises(IndexError, match="page 4 is outside"):
        runs[4]

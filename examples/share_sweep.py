"""Scenarios from Python: Pss of a process whose huge page a second one maps in part, for more and more pages.

    python examples/share_sweep.py

Pss divides each page among those who map it. Mainline counts each page's mappings; without per-page mapcounts the
folio's average has to do, which is where the columns part.
"""

from __future__ import annotations

from ptwalk.scenario.runner import run_lines
from ptwalk.scenario.script import parse


def pss(pages: int) -> dict[str, int]:
    """Pss of A in kB by model, where B maps the first `pages` pages of A's 2M of shared memory."""
    story = f"""
        file f shmem 2M
        folio F f
        mmap A v f
        mmap B v f
        fault A v 0..511 pmd
        fault B v 0..{pages - 1} pte
    """
    last = run_lines(parse(story)).steps[-1]
    return {model: int(column["Pss"]) for model, column in last.snapshot.processes["A"].items()}


def main() -> None:
    for pages in (1, 16, 128, 256, 512):
        shares = pss(pages)
        if pages == 1:
            print("pages of B  " + "".join(f"{model:>20}" for model in shares))
        print(f"{pages:>10}  " + "".join(f"{share:>17} kB" for share in shares.values()))


if __name__ == "__main__":
    main()

"""What a fork does to a huge page's counters, and what a half-unmapped child leaves, in three accounting models.

python examples/fork_counters.py
"""

from __future__ import annotations

from ptwalk.scenario.runner import run_lines
from ptwalk.scenario.script import parse

STORY = """
mmap A area anon 2M
fault A area            # one write: a huge page, mapped by a PMD
fork A B                # the child maps it too, and neither may write it without a copy
split B area            # B's PMD becomes 512 PTEs, as when it changes the rights of a part
zap B area 0..255       # B gives the first half back (MADV_DONTNEED)
"""


def main() -> None:
    for step in run_lines(parse(STORY)).steps:
        print(f"\n{step.line.text}")
        for folio in step.snapshot.folios.values():
            names = list(dict.fromkeys(name for column in folio.models.values() for name in column))
            print(f"  {'':<24}" + "".join(f"{model:>22}" for model in folio.models))
            for name in names:
                print(f"  {name:<24}" + "".join(f"{column.get(name, ''):>22}" for column in folio.models.values()))


if __name__ == "__main__":
    main()

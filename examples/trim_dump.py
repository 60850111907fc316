"""Cut an ELF core of a whole machine down to its page tables: small enough to mail, and nobody's data in it.

    python examples/trim_dump.py vmcore tables.elf

Header and notes stay as they are; of the memory only the pages that a table of the dump's own registers lies in. Works
for whatever paging mode those registers select: tables, levels and entries are asked of the regime, not known here.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

from ptwalk.loaders import load
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.regime import EntryType, Regime
from ptwalk.mmu.spaces import read_entries

PAGE = 4096
EHDR, PHDR, PT_LOAD, PT_NOTE = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), 1, 4


def table_pages(memory: PhysicalMemory, regime: Regime) -> set[int]:
    """The addresses of all pages that hold a table."""
    found: set[int] = set()
    for tree in regime.trees:
        tables = {tree.root}
        for level in tree.levels:
            size = level.entries * tree.entry_size
            found |= {page for table in tables for page in range(table // PAGE * PAGE, table + size, PAGE)}
            words = (word for table in tables for word in read_entries(memory, table, level.entries, tree.entry_size))
            entries = [regime.classify(level, word) for word in words if word]
            tables = {entry.pa for entry in entries if entry.type is EntryType.TABLE and memory.backs(entry.pa, PAGE)}
    return found


def trim(source: Path, target: Path) -> int:
    """Write the trimmed core; the number of pages it holds."""
    machine = load(source)
    pages = sorted(table_pages(machine.memory, machine.regime()))
    data = source.read_bytes()
    header = list(EHDR.unpack_from(data))
    offset, count = header[5], header[10]
    notes = next(row for i in range(count) if (row := PHDR.unpack_from(data, offset + i * PHDR.size))[0] == PT_NOTE)
    header[5], header[6], header[10] = EHDR.size, 0, 1 + len(pages)  # program headers behind the header, no sections
    first = -(-(EHDR.size + (1 + len(pages)) * PHDR.size + notes[5]) // PAGE) * PAGE
    rows = [(PT_NOTE, 0, EHDR.size + (1 + len(pages)) * PHDR.size, 0, 0, notes[5], notes[5], 0)]
    rows += [(PT_LOAD, 4, first + i * PAGE, 0, pa, PAGE, PAGE, 0) for i, pa in enumerate(pages)]
    with target.open("xb") as out:
        out.write(EHDR.pack(*header) + b"".join(PHDR.pack(*row) for row in rows))
        out.write(data[notes[2] : notes[2] + notes[5]])
        out.write(bytes(first - out.tell()))
        for pa in pages:
            out.write(machine.memory.read(pa, PAGE))
    return len(pages)


if __name__ == "__main__":
    print(f"{trim(Path(sys.argv[1]), Path(sys.argv[2]))} pages with tables")

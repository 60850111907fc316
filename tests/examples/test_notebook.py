"""The notebooks in examples/notebooks run from top to bottom and print what is kept in them."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import nbformat
import pytest
from capture_files import EXAMPLES, files_of
from nbclient import NotebookClient

NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))


def outputs(cell: Any) -> list[object]:
    """What a cell printed and returned, without counters and metadata."""
    return [output.get("text") or output.get("data") or output for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    assert len(fresh.cells) == len(kept.cells) > 10
    for before, after in zip(kept.cells, fresh.cells, strict=True):
        assert outputs(after) == outputs(before), after.source


def test_the_counts_are_those_of_the_kernel() -> None:
    """Pages that user mode may read, by what A's kernel said: those present in pagemap (bit 63) outside of PROT_NONE
    areas, and its mapping of /dev/mem, which pagemap leaves out."""
    files = files_of(EXAMPLES / "captures" / "x86_64-7.3.4-P.tar.xz")
    entries = [entry for (entry,) in struct.iter_unpack("<Q", files["cp5/A.pagemap.bin"])]
    areas = [
        (int(start, 16), int(end, 16), rights, name)
        for start, end, rights, name in re.findall(
            r"^(\w+)-(\w+) (\S+)(.*)$", files["cp5/proc/A/maps"].decode(), re.MULTILINE
        )
    ]
    readable = 0
    for start, _, first, count in json.loads(files["cp5/A.pagemap.json"]):
        va = int(start, 16)
        rights, name = next((rights, name) for low, high, rights, name in areas if low <= va < high)
        present = sum(entry >> 63 for entry in entries[first : first + count])
        readable += count if name.endswith("/dev/mem") else 0 if rights.startswith("---") else present
    text = (EXAMPLES / "notebooks" / "first_walk.ipynb").read_text()
    small, large = re.findall(r"Counter\(\{'4K': (\d+), '2048K': (\d+)\}\)", text)[0]
    assert int(small) + 512 * int(large) == readable

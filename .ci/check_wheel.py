"""Check that a wheel holds every module of the real folders, once, and the data that goes with them."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("arch", "mmu", "rmap", "loaders")

inside = zipfile.ZipFile(sys.argv[1]).namelist()
wanted = {"ptwalk/py.typed", "ptwalk/loaders/layout.schema.json"}
for folder, base in ((ROOT / "src" / "ptwalk", ROOT / "src" / "ptwalk"), *((ROOT / room, ROOT) for room in ROOMS)):
    wanted |= {f"ptwalk/{path.relative_to(base)}" for path in folder.rglob("*.py")}
if missing := sorted(wanted - set(inside)):
    sys.exit(f"the wheel lacks {len(missing)} files: {', '.join(missing[:10])}")
if len(set(inside)) != len(inside):
    sys.exit("the wheel holds a file twice")
print(f"{len(wanted)} files wanted, all inside; {len(inside)} files in the wheel")

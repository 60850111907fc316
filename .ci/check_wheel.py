"""Check that a wheel holds every module of the real folders, once, and the py.typed marker."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
inside = set(zipfile.ZipFile(sys.argv[1]).namelist())
wanted = {"ptwalk/py.typed"} | {
    f"ptwalk/{path.relative_to(base)}"
    for base in (root / "src" / "ptwalk", root)
    for folder in ((".",) if base.name == "ptwalk" and base.parent.name == "src" else ("arch", "mmu", "rmap", "loaders"))
    for path in (base / folder).rglob("*.py")
}
if missing := sorted(wanted - inside):
    sys.exit(f"the wheel lacks {len(missing)} files: {', '.join(missing[:10])}")
print(f"{len(wanted)} modules wanted, all inside, {len(inside)} files in the wheel")

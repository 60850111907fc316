"""`ptwalk decode KIND VALUE`."""

from __future__ import annotations

import difflib

from ..arch.errors import InputError
from ..arch.layout import Layout
from ..render import bit_diagram
from . import common


def kinds() -> dict[str, Layout]:
    """Every entry and register kind of both architectures by `ARCH:NAME`, and by bare name where that is unique."""
    from ..arch.arm64.kinds import KINDS as ARM64
    from ..arch.x86_64.kinds import KINDS as X86_64

    table = {f"x86_64:{name}": layout for name, layout in X86_64.items()}
    table |= {f"arm64:{name}": layout for name, layout in ARM64.items()}
    for name, layout in [*X86_64.items(), *ARM64.items()]:
        if not (name in X86_64 and name in ARM64):
            table[name] = layout
    return table


def find(kind: str) -> Layout:
    """The layout of this name, whatever its case; InputError suggests near names."""
    folded = {name.lower(): layout for name, layout in kinds().items()}
    if layout := folded.get(kind.lower()):
        return layout
    near = difflib.get_close_matches(kind.lower(), folded, n=5, cutoff=0.5)
    hint = f"; near: {', '.join(folded[n].name for n in near)}" if near else ""
    raise InputError(f"no entry or register kind of this name{hint} (ptwalk decode --list)", field="KIND", value=kind)


def decode(kind: str | None = None, value: str | None = None, /, *, list_: bool = False, json: bool = False) -> int:
    """Show every field of an entry or register value.

    Args:
        kind: An entry or register in the manual's name: PTE, PDE_2M, CR4, PAGE_4K, TCR_EL1, x86_64:..., arm64:...
        value: The value in hexadecimal.
        list_: List all kinds instead.
        json: One JSON object: kind, width, value, fields [{name, shift, width, role, value}].
    """
    if list_:
        _print_kinds()
        return 0
    if kind is None or value is None:
        raise InputError("decode needs a KIND and a VALUE, or --list")
    layout = find(kind)
    number = common.value(value, layout.width, "VALUE")
    if json:
        fields = [
            {"name": f.name, "shift": f.shift, "width": f.width, "role": f.role, "value": hex(f.get(number))}
            for f in layout.values()
        ]
        common.print_json({"kind": layout.name, "width": layout.width, "value": hex(number), "fields": fields})
        return 0
    print(f"{layout.name}  {number:#0{layout.width // 4 + 2}x}  {layout.title}".rstrip())
    print(bit_diagram(layout, number))
    if layout.source:
        print(f"source: {layout.source}")
    return 0


def _print_kinds() -> None:
    for name, layout in kinds().items():
        if ":" in name:
            print(f"{name:<32} {layout.width:>3} bits  {layout.title}".rstrip())

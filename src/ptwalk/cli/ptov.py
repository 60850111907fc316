"""`ptwalk ptov FILE PA`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import common, listed
from .source import DEFAULT, Source, open_machine


def ptov(
    file: Path,
    pa: str,
    /,
    *,
    json: bool = False,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """Every virtual address, in every address space, that leads to a physical one; exit 1 when there is none.

    Args:
        file: A capture, ELF core, dump, raw image or layout description.
        pa: The physical address, in hexadecimal.
        json: One JSON object instead of text (docs/json.md).
    """
    listing = listed.opened(file, source)
    if listing is not None:
        return listed.ptov(listing, common.address(pa, "PA"), json)
    from ..mmu.kernels.reverse import ptov as find

    machine = open_machine(file, source)
    number = common.address(pa, "PA")
    sites = find(machine, number)
    if json:
        rows = [{"space": s.space, "va": hex(s.va), "page_size": 1 << s.page_shift} for s in sites]
        common.print_json({"file": machine.source, "arch": machine.arch, "pa": hex(number), "mappings": rows})
    else:
        print(f"PA    {number:#018x}  mapped {len(sites)} times in {len(machine.spaces)} address spaces")
        for site in sites:
            print(f"  {site.space:<12} {site.va:#018x}  {common.size(1 << site.page_shift)} page")
    return 0 if sites else 1

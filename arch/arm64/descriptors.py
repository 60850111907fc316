"""VMSAv8-64 and VMSAv9-128 translation table descriptors, by stage, granule and output-address format.

Bit 0 first, with the manual's field names (Arm ARM D8.3). Output-address formats: plain (48 bits), `LPA` (64K granule
with FEAT_LPA: address bits 51:48 in descriptor bits 15:12) and `LPA2` (4K and 16K granules with TCR.DS=1: address bits
51:50 in descriptor bits 9:8, so that there is no SH field, and 49:48 in place). TABLE, BLOCK and PAGE differ; a plain
BLOCK is one at level 2, other levels say so (`BLOCK_4K_L1`). Stage-2 kinds start with `S2_`, 128-bit ones with `D128_`.
"""

from __future__ import annotations

from construct import Renamed

from ..layout import IGNORED, Layout, address, bit, bits, ignored, merge, res0, software

GRANULES = {"4K": 12, "16K": 14, "64K": 16}
FORMATS = {"4K": ("", "LPA2"), "16K": ("", "LPA2"), "64K": ("", "LPA")}
BLOCK_LEVELS = {("4K", ""): (1, 2), ("4K", "LPA2"): (0, 1, 2), ("16K", ""): (2,), ("16K", "LPA2"): (1, 2),
                ("64K", ""): (2,), ("64K", "LPA"): (1, 2)}  # fmt: skip
HIGH_ADDRESS = {"OA_51_48": 48, "NLTA_51_48": 48, "OA_51_50": 50, "NLTA_51_50": 50}


def _table_address(shift: int, form: str) -> list[Renamed]:
    """Bits 2 to 50 of a table descriptor: the next-level table address and what surrounds it."""
    if form == "LPA2":
        gap = [ignored(shift - 11)] if shift > 11 else []
        return [ignored(6), address("NLTA_51_50", 2), bit("AF"), *gap, address("NLTA", 50 - shift), res0()]
    if form == "LPA":
        return [ignored(8), bit("AF"), ignored(), address("NLTA_51_48", 4), address("NLTA", 32), res0(3)]
    return [ignored(8), bit("AF"), ignored(shift - 11), address("NLTA", 48 - shift), res0(3)]


def _table(stage: int, granule: str, form: str) -> Layout:
    if stage == 1:
        top = [bit("PXNTable"), bit("UXNTable"), bits("APTable", 2), bit("NSTable")]
    else:
        top = [ignored(4), bit("NSTable")]
    name = "_".join(filter(None, ["S2" if stage == 2 else "", "TABLE", granule, form]))
    fields = [bit("valid"), bit("table"), *_table_address(GRANULES[granule], form), ignored(), bit("Protected")]
    title = f"stage {stage} table descriptor, {granule} granule{_said(form)}"
    return Layout(name, *fields, software("SW_58_53", 6), *top, title=title, source="Arm ARM D8.3.1")


def _said(form: str) -> str:
    return f", 52-bit addresses ({form})" if form else ""


def _output_address(granule: str, form: str, level: int) -> list[Renamed]:
    """Bits 12 to 49 of a block or page descriptor; bit 16 of a block is nT (FEAT_BBM), unless the address has it."""
    page, end = GRANULES[granule], 50 if form == "LPA2" else 48
    size = page + (3 - level) * (page - 3)
    fields = [address("OA_51_48", 4)] if form == "LPA" else [res0(min(size, 16) - 12)] if size > 12 else []
    if size > 16:
        fields += [bit("nT"), res0(size - 17)]
    fields += [address("OA", end - size)]
    return fields if end == 50 else [*fields, res0(2)]


def _leaf(stage: int, granule: str, form: str, level: int) -> Layout:
    kind = "PAGE" if level == 3 else "BLOCK"
    name = [("S2" if stage == 2 else ""), kind, granule, form, "" if level > 1 else f"L{level}"]
    share = address("OA_51_50", 2) if form == "LPA2" else bits("SH", 2)
    if stage == 1:
        low = [bits("AttrIndx", 3), bit("NS"), bits("AP", 2), share, bit("AF"), bit("nG")]
        high = [bit("GP"), bit("DBM"), bit("Contiguous"), bit("PXN"), bit("UXN"), software("SW_58_55", 4),
                bit("AttrIndx_3"), bits("POIndex", 3), software("SW_63")]  # fmt: skip
    else:
        low = [bits("MemAttr", 4), bits("S2AP", 2), share, bit("AF"), bit("FnXS")]
        high = [res0(), bit("DBM"), bit("Contiguous"), bits("XN", 2), bit("NS"), software("SW_57_56", 2),
                bit("AssuredOnly"), bits("S2POIndex", 4), bit("AMEC")]  # fmt: skip
    middle = _output_address(granule, form, level)
    fields = [bit("valid"), bit("page" if level == 3 else "table"), *low, *middle, *high]
    title = f"stage {stage} level {level} {kind.lower()} descriptor, {granule} granule{_said(form)}"
    return Layout("_".join(filter(None, name)), *fields, title=title, source="Arm ARM D8.3.1")


def _d128(stage: int, kind: str) -> Layout:
    """The 128-bit descriptors; the address field holds whatever the level does not ignore."""
    low = [bit("valid"), ignored()]
    if kind == "TABLE":
        low += [ignored(4), bit("nT"), ignored(3), bit("AF"), ignored(), address("NLTA", 44)]
        top = [bits("SKL", 2), ignored(), bit("DisCH"), ignored(), bit("Protected"), ignored(8), bit("PXNTable"),
               bit("UXNTable"), bits("APTable", 2), bit("NSTable")]  # fmt: skip
        top_low = [ignored(35), software("SW_102_91", 12), bit("AMEC"), ignored(5)]
    else:
        attributes = [bits("AttrIndx" if stage == 1 else "MemAttr", 4), bit("nT")]
        dirty, last = ("nDirty", "nG") if stage == 1 else ("dirty", "FnXS")
        low += [*attributes, bit(dirty), bits("SH", 2), bit("AF"), bit(last), address("OA", 44)]
        protect = "Protected" if stage == 1 else "AssuredOnly"
        overlay = "POIndex" if stage == 1 else "S2POIndex"
        top_low = [ignored(35), software("SW_102_91", 12), bit("AMEC"), ignored(5)]
        top = [bits("SKL", 2), bit("Contiguous"), ignored(), bit("GP"), bit(protect), bits("PIIndex", 4), ignored(2),
               bits(overlay, 4), ignored(2), bit("NS")]  # fmt: skip
    name = "_".join(filter(None, ["D128", "S2" if stage == 2 else "", kind]))
    title = f"stage {stage} 128-bit {kind.lower()} descriptor (FEAT_D128)"
    return Layout(name, *low, *top_low, *top, title=title, source="Arm ARM D8.3.2")


def _all() -> list[Layout]:
    layouts = []
    for stage in (1, 2):
        for granule, forms in FORMATS.items():
            for form in forms:
                layouts.append(_table(stage, granule, form))
                layouts += [_leaf(stage, granule, form, level) for level in (*BLOCK_LEVELS[granule, form], 3)]
        layouts += [_d128(stage, kind) for kind in ("TABLE", "LEAF")]
    invalid = Layout("INVALID", bit("valid"), software("SW", 63), title="invalid descriptor", source="Arm ARM D8.3")
    return [*layouts, invalid]


LAYOUTS = merge(*_all())
INVALID = LAYOUTS["INVALID"]


def layout_for(granule: str, form: str, level: int, *, table: bool, stage: int = 1) -> Layout:
    """The layout of a table, block or page descriptor; KeyError where the granule has no block at that level.

    >>> layout_for("4K", "", 2, table=False), layout_for("64K", "LPA", 1, table=False).name
    (<Layout BLOCK_4K: 64 bits, 22 fields>, 'BLOCK_64K_LPA_L1')
    """
    kind = "TABLE" if table else "PAGE" if level == 3 else "BLOCK"
    suffix = f"L{level}" if kind == "BLOCK" and level < 2 else ""
    return LAYOUTS["_".join(filter(None, ["S2" if stage == 2 else "", kind, granule, form, suffix]))]


def output_address(layout: Layout, raw: int) -> int:
    """The address, in bytes, that the address fields of descriptor `raw` spell, high bits put in their place.

    >>> hex(output_address(LAYOUTS["PAGE_64K_LPA"], 0x0000_1234_0000_f703))
    '0xf123400000000'
    """
    value = 0
    for field in layout.values():
        if field.role == "address":
            at = HIGH_ADDRESS.get(field.name, field.shift)
            value |= field.get(raw) << at
    return value


def with_address(layout: Layout, raw: int, pa: int) -> int:
    """Descriptor `raw` with its address fields replaced by `pa`; ValueError where `pa` does not fit the fields.

    >>> hex(with_address(LAYOUTS["PAGE_4K_LPA2"], 0x403, 0xc_0000_0000_1000))
    '0x1703'
    """
    for field in layout.values():
        if field.role == "address":
            at = HIGH_ADDRESS.get(field.name, field.shift)
            raw = field.put(raw, pa >> at & (1 << field.width) - 1)
    if output_address(layout, raw) != pa:
        raise ValueError(f"{layout.name} cannot hold the address {pa:#018x}")
    return raw


def ignored_mask(layout: Layout) -> int:
    """The bits of a descriptor that hardware ignores and software does not own."""
    return layout.role_mask(IGNORED)

"""Built tables, read back by the reference walker: every mapping goes where it should, with the rights asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.mmu.builder import Mapping, MappingError, build
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.hardware_entries import PageAttributes
from ptwalk.mmu.spaces import leaves
from ptwalk.mmu.walk import Fault, Rights, Translation, outcome

from .table_regimes import BY_NAME, CASES, ROOT, TABLES, Case

ATTRIBUTES = PageAttributes()


def expected_rights(case: Case, attributes: PageAttributes) -> Rights:
    """What the manuals grant without SMEP, SMAP, PAN and WXN, and with CR0.WP."""
    rights = Rights.KR | (Rights.KW if attributes.write else Rights(0))
    if attributes.user:
        rights |= Rights.UR | (Rights.UW if attributes.write else Rights(0))
    if attributes.execute:
        if case.regime.arch == "x86_64":
            rights |= Rights.KX | (Rights.UX if attributes.user else Rights(0))
        else:
            rights |= Rights.UX if attributes.user else Rights.KX
    return rights


@st.composite
def described(draw):
    """A case and a few mappings that do not overlap, each of a random page size or the largest that fits."""
    case = draw(st.sampled_from(CASES))
    trees = case.regime.trees
    tree = draw(st.sampled_from(trees))
    sizes = [1 << level.shift for level in tree.levels if level.leaf]
    top = 1 << min(48 if case.regime.arch == "arm64" else case.regime.maxphyaddr, 32 if "32" in case.name else 46)
    mappings, va = [], tree.va_start
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.sampled_from(sizes))
        va += size * draw(st.integers(0, 3))
        va = -(-va // size) * size
        count = draw(st.integers(1, 5))
        pa = draw(st.integers(0, top // size - count)) * size
        if va + count * size > tree.va_end:
            break
        no_nx = case.name.startswith("32-bit")
        attributes = PageAttributes(
            write=draw(st.booleans()),
            execute=no_nx or draw(st.booleans()),
            user=draw(st.booleans()),
            global_=draw(st.booleans()),
        )
        fixed = draw(st.sampled_from([size, None])) if size < 1 << 29 else size
        mappings.append(Mapping(va, pa, count * size, attributes, fixed, contiguous=case.regime.arch == "arm64"))
        va += count * size
    return case, mappings


@settings(max_examples=150, deadline=None)
@given(described(), st.data())
def test_what_is_mapped_is_translated(pair, data):
    case, mappings = pair
    memory = case.memory()
    build(memory, case.regime, case.frames(), mappings)
    for mapping in mappings:
        offsets = [0, mapping.size - 1, data.draw(st.integers(0, mapping.size - 1))]
        for offset in offsets:
            found = outcome(case.regime.walk(memory, mapping.va + offset))
            assert isinstance(found, Translation), found
            assert found.pa == mapping.pa + offset
            assert found.rights == expected_rights(case, mapping.attributes)
            if mapping.page_size is not None:
                assert 1 << found.page_shift == mapping.page_size
    covered = sum(leaf.size for leaf in leaves(memory, case.regime))
    assert covered == sum(mapping.size for mapping in mappings)
    edges = {mapping.end for mapping in mappings} - {mapping.va for mapping in mappings}
    for va in edges:
        if any(va in tree for tree in case.regime.trees):
            assert isinstance(outcome(case.regime.walk(memory, va)), Fault)


@pytest.mark.parametrize(
    ("name", "pages"),
    [("4-level", [30, 21, 12]), ("4-level-no-1G", [21, 21, 12]), ("4K-48", [30, 21, 12]), ("64K-42", [29, 29, 16])],
)
def test_the_largest_page_that_fits(name, pages):
    case, memory = BY_NAME[name], BY_NAME[name].memory()
    small = case.page_size
    big = 1 << 30
    build(memory, case.regime, case.frames(), [Mapping(big, big, big + (1 << pages[1]) + small)])
    found = {leaf.level.shift for leaf in leaves(memory, case.regime)}
    assert found == set(pages)
    assert next(leaves(memory, case.regime)).level.shift == pages[0]


def test_an_address_that_is_not_congruent_forces_small_pages():
    case, memory = BY_NAME["4-level"], BY_NAME["4-level"].memory()
    build(memory, case.regime, case.frames(), [Mapping(1 << 21, (1 << 21) + 4096, 1 << 21)])
    assert {leaf.level.shift for leaf in leaves(memory, case.regime)} == {12}


@pytest.mark.parametrize(("name", "entries"), [("4K-48", 16), ("16K-47", 128), ("64K-42", 32)])
def test_contiguous_groups(name, entries):
    """Arm ARM D8.4.2: 16, 128 or 32 level 3 entries; only whole aligned groups get the bit."""
    case, memory, size = BY_NAME[name], BY_NAME[name].memory(), BY_NAME[name].page_size
    start = entries * size - size
    mapping = Mapping(start, 2**28 + start, (entries + 2) * size, page_size=size, contiguous=True)
    build(memory, case.regime, case.frames(), [mapping])
    bits = [leaf.layout["Contiguous"].get(leaf.entry) for leaf in leaves(memory, case.regime)]
    assert bits == [0] + [1] * entries + [0]
    for leaf in leaves(memory, case.regime):
        assert outcome(case.regime.walk(memory, leaf.va)).pa == 2**28 + leaf.va


def test_a_high_address_of_lpa2_and_of_lpa():
    for name in ("4K-LPA2", "16K-LPA2", "64K-LPA"):
        case, memory = BY_NAME[name], BY_NAME[name].memory()
        pa = 0xF_ABC1_2340_0000 & -case.page_size
        build(memory, case.regime, case.frames(), [Mapping(0, pa, case.page_size)])
        assert outcome(case.regime.walk(memory, 0)).pa == pa


def test_pse_36():
    case, memory = BY_NAME["32-bit-PSE"], BY_NAME["32-bit-PSE"].memory()
    mapping = Mapping(1 << 22, 0xF_0040_0000, 1 << 22, PageAttributes(execute=True))
    build(memory, case.regime, case.frames(), [mapping])
    assert outcome(case.regime.walk(memory, 0x40_1234)).pa == 0xF_0040_1234


GOOD = Mapping(0x40_0000, 0x40_0000, 0x1000, label="spaces.A.mappings[0]")
BAD = [
    (replace(GOOD, size=0), "size", "not positive"),
    (replace(GOOD, va=0x40_0001), "va", "not a multiple of the page size 0x1000"),
    (replace(GOOD, pa=0x40_0800), "pa", "not a multiple"),
    (replace(GOOD, size=0x1800), "size", "not a multiple"),
    (replace(GOOD, page_size=0x20_0000), "size", "not a multiple of the page size 0x200000"),
    (replace(GOOD, page_size=0x4000), "page_size", "the page sizes here are 0x40000000, 0x200000, 0x1000"),
    (replace(GOOD, va=1 << 47), "va", "not inside one range of translated addresses"),
    (replace(GOOD, va=(1 << 47) - 0x1000, size=0x2000), "va", "not inside one range"),
    (replace(GOOD, va=-0x1000), "va", "not inside one range"),
    (replace(GOOD, pa=1 << 52), "pa", "cannot hold this address"),
    (replace(GOOD, pa=(1 << 52) - 0x1000, size=0x2000), "pa", "cannot hold this address"),
    (replace(GOOD, attributes=PageAttributes(pkey=16)), "PK", "has 4 bits"),
    (replace(GOOD, attributes=PageAttributes(memory_type=8)), "pa", "8 PAT entries"),
]


@pytest.mark.parametrize(("mapping", "part", "words"), BAD)
def test_refused_mappings_say_which_and_why(mapping, part, words):
    case, memory = BY_NAME["4-level"], BY_NAME["4-level"].memory()
    with pytest.raises(MappingError, match=words) as caught:
        build(memory, case.regime, case.frames(), [Mapping(0, 0, 0x1000), mapping])
    assert caught.value.index == 1
    assert caught.value.field == f"spaces.A.mappings[0].{part}"
    assert not any(memory.read(ROOT, 4096)), "nothing was written"


def test_overlap_names_both():
    case = BY_NAME["4-level"]
    mappings = [Mapping(0x3000, 0, 0x1000), Mapping(0x1000, 0, 0x2001000 - 0x1FFE000, label="B")]
    with pytest.raises(MappingError, match=r"mapping 0\.va: overlaps B, which ends at 0x0000000000004000"):
        build(case.memory(), case.regime, case.frames(), mappings)


def test_too_few_frames_leave_nothing_behind():
    case, memory = BY_NAME["4-level"], BY_NAME["4-level"].memory()
    with pytest.raises(MappingError, match="no frame is left"):
        build(memory, case.regime, FrameAllocator(TABLES, TABLES + 0x4000), [GOOD, replace(GOOD, va=1 << 40)])
    assert not any(memory.read(ROOT, 4096))


def test_a_mode_without_nx_says_so():
    case = BY_NAME["32-bit"]
    with pytest.raises(MappingError, match="cannot forbid execution"):
        build(case.memory(), case.regime, case.frames(), [GOOD])


def test_frames_of_the_wrong_size():
    case = BY_NAME["64K-42"]
    with pytest.raises(InputError, match="does not fit a frame"):
        build(case.memory(), case.regime, FrameAllocator(TABLES, TABLES + 0x4000), [])

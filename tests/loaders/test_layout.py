"""Layout descriptions: what is described is what walks find, and every mistake is named by its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from capture_files import EXAMPLES

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.loaders.layout_schema import schema
from ptwalk.loaders.presets import PRESETS
from ptwalk.mmu.machine import Folio, Machine
from ptwalk.mmu.walk import Access, AccessKind, Fault, Outcome, Translation, outcome

LAYOUTS = sorted((EXAMPLES / "layouts").glob("*.toml"))
HEAD = 'preset = "x86_64-4level"\nmemory = [{start = "0x0", size = "64M"}]\n'
MODES = ("user", "kernel")  # the lower and the upper half
ARM = 'preset = "arm64-4k-48"\nmemory = [{start = "0x0", size = "64M"}]\n'


def build(tmp_path: Path, text: str) -> Machine:
    path = tmp_path / "layout.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def walk(machine: Machine, space: str, va: int, kind: str = "read", *, user: bool = True) -> Outcome:
    return outcome(machine.regime(space).walk(machine.memory, va, Access(AccessKind(kind), user=user)))


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda p: p.name)
def test_examples_load(path: Path) -> None:
    assert load(path).spaces


def test_the_x86_example() -> None:
    machine = load(EXAMPLES / "layouts/x86_64.toml")
    assert machine.spaces["shell"].registers == {"CR3": 0xFF_F000}
    assert machine.features["maxphyaddr"] == 46
    text = walk(machine, "shell", 0x40_1234, "execute")
    assert isinstance(text, Translation)
    assert (text.pa, text.page_shift) == (0x200_1234, 12)
    assert isinstance(walk(machine, "shell", 0x40_1234, "write"), Fault)
    huge = walk(machine, "shell", 0x7FFF_F020_0040)
    assert isinstance(huge, Translation)
    assert (huge.pa, huge.page_shift) == (0x1_0040_0040, 21)
    pool = walk(machine, "database", 0x10_1234_5678)
    assert isinstance(pool, Translation)
    assert (pool.pa, pool.page_shift) == (0x1_5234_5678, 30)
    assert isinstance(walk(machine, "database", 0x40_1234), Fault)
    direct = walk(machine, "shell", 0xFFFF_8880_0000_1000, user=False)
    assert isinstance(direct, Translation)
    assert direct.pa == 0x1000
    assert machine.folios[0] == Folio(0x2000, 4, "file", "text")
    assert len(machine.folios) == 16 + 1 + 3


def test_the_arm64_example() -> None:
    machine = load(EXAMPLES / "layouts/arm64.toml")
    block = walk(machine, "init", 0x234_5678)
    assert isinstance(block, Translation)
    assert (block.pa, block.page_shift) == (0x4234_5678, 25)
    uart = walk(machine, "init", 0xFFFF_8000_0000_0018, user=False)
    assert isinstance(uart, Translation)
    assert uart.pa == 0x900_0018
    assert isinstance(walk(machine, "init", 0x40_0000, "write"), Fault)


@pytest.mark.parametrize("name", PRESETS)
def test_every_page_size_of_every_preset(tmp_path: Path, name: str) -> None:
    """One mapping with each page size that the mode has, in both halves of the address space."""
    shifts = {"x": (12, 21, 30), "4k": (12, 21, 30), "16k": (14, 25), "64k": (16, 29)}
    granule = name.split("-")[1]
    sizes = shifts["x" if name.startswith("x") else granule]
    if name == "arm64-16k-52":
        sizes = (14, 25, 36)
    elif name == "arm64-64k-52":
        sizes = (16, 29, 42)
    elif name == "arm64-4k-52":
        sizes = (12, 21, 30, 39)
    head = f'preset = "{name}"\nmemory = [{{start = 0, size = "64M"}}]\n[[spaces]]\nname = "A"\n'
    bases = [(tree.va_start, mode) for tree, mode in zip(build(tmp_path, head).regime("A").trees, MODES, strict=True)]
    wanted = [(base + (shift != sizes[0]) * (1 << shift), shift, mode) for base, mode in bases for shift in sizes]
    text = head
    for va, shift, mode in wanted:
        text += f'[[spaces.mappings]]\nva = "{va:#x}"\npa = 0\nsize = {1 << shift}\npage_size = {1 << shift}\n'
        text += f'mode = "{mode}"\n'
    machine = build(tmp_path, text)
    for va, shift, mode in wanted:
        found = walk(machine, "A", va + (1 << shift) - 1, user=mode == "user")
        assert isinstance(found, Translation), (hex(va), found)
        assert (found.pa, found.page_shift) == ((1 << shift) - 1, shift)


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda p: p.name)
def test_the_committed_schema_is_current_and_accepts_the_examples(path: Path) -> None:
    import tomllib

    import jsonschema

    committed = json.loads((EXAMPLES.parent / "loaders/layout.schema.json").read_text())
    assert committed == json.loads(json.dumps(schema()))
    jsonschema.validate(tomllib.loads(path.read_text()), committed)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"memory": [{"start": 0, "sise": 1}]}, committed)


SPACE = '[[spaces]]\nname = "A"\nmappings = ['


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory = 3", "memory: expected `array`, got `int`"),
        ('preset = "x86_64-4level"', "object missing required field `memory`"),
        ("memory = []", "memory: expected `array` of length >= 1"),
        ('memory = [{start = 0, size = "1M"}]', "arch: this file holds no registers"),
        (HEAD + "typo = 1", "object contains unknown field `typo`"),
        (HEAD.replace("size", "sise"), "memory[0]: object contains unknown field `sise`"),
        (HEAD + 'arch = "vax"', "arch: invalid enum value 'vax'"),
        (HEAD + 'arch = "arm64"', "preset: the preset is for x86_64, not arm64"),
        (HEAD.replace("4level", "9level"), "preset: no such preset"),
        (HEAD.replace("64M", "64Q"), "memory[0].size: not a size"),
        (HEAD.replace("64M", "100"), "memory[0]: a bank holds whole pages of 4096 bytes"),
        (HEAD.replace('"0x0"', '"0x0g"'), "memory[0].start: not an address"),
        (HEAD.replace('"0x0"', "-4096"), "memory[0].start: not an address of 64 bits"),
        (HEAD.replace("}]", "}, {start = 0x100_0000, size = 4096}]"), "memory[1].start: the bank 0x1000000-0x1001000"),
        (HEAD.replace('size = "64M"', 'size = "64M", end = "0x1"'), "memory[0]: give either size or end"),
        (HEAD.replace('size = "64M"', 'end = "0x0"'), "memory[0]: a bank holds whole pages"),
        (HEAD.replace('"0x0"', '"0xff_ffff_ffff_f000"'), "memory[0].start: the bank ends beyond 56 address bits"),
        (HEAD + "[registers]\nCR9 = 1", "registers: no register of x86_64 that a walk reads ('CR9')"),
        (HEAD + '[registers]\nCR4 = "yes"', "registers.CR4: not an address"),
        (HEAD + '[tables]\nstart = "0x8000_0000"\nsize = "1M"', "tables: no RAM holds the page tables"),
        (HEAD + '[tables]\nstart = "0x10"\nsize = "1M"', "tables: page tables need whole pages"),
        (HEAD + '[tables]\nstart = "0x0"\nsize = "4K"\n' + SPACE + '{va=0,pa=0,size="4K"}]', "spaces[0].mappings[0]"),
        (HEAD + '[[spaces]]\nname = ""', "spaces[0].name: expected `str` of length >= 1"),
        (HEAD + '[[spaces]]\nname = "A"\n[[spaces]]\nname = "A"', "spaces[1].name: two spaces share this name ('A')"),
        (HEAD + '[[spaces]]\nname = "A"\nroot = "0x10"', "spaces[0].root: not a whole page of RAM (0x10)"),
        (HEAD + '[[spaces]]\nname = "A"\nroot = "0x3fff000"', "spaces[0].root: lies where page tables are allocated"),
        (HEAD + SPACE + '{va = 0, pa = 0, size = "4K", perm = 1}]', "spaces[0].mappings[0]: object contains unknown"),
        (HEAD + SPACE + "{va = 0, pa = 0, size = 0}]", "spaces[0].mappings[0].size: not a size of at least one byte"),
        (HEAD + SPACE + "{va = 4, pa = 0, size = 4096}]", "mappings[0].va: not aligned to the page size 0x1000"),
        (HEAD + SPACE + "{va = 0, pa = 1, size = 4096}]", "mappings[0].pa: not aligned to the page size 0x1000"),
        (HEAD + SPACE + "{va = 0, pa = 0, size = 4097}]", "spaces[0].mappings[0].size: not aligned"),
        (HEAD + SPACE + '{va = 4096, pa = 0, size = "2M", page_size = "2M"}]', "[0].va: not aligned to the page size"),
        (HEAD + SPACE + '{va = 0, pa = 0, size = "2M", page_size = "64K"}]', "mappings[0].page_size: no page size"),
        (HEAD + SPACE + '{va = "8000_0000_0000", pa = 0, size = "4K"}]', "mappings[0].va: this paging mode does not"),
        (HEAD + SPACE + '{va = "7fff_ffff_f000", pa = 0, size = "8K"}]', "mappings[0].size: runs beyond the addresses"),
        (HEAD + SPACE + '{va = 0, pa = "10_0000_0000_0000", size = "4K"}]', "mappings[0].pa: a PTE cannot hold"),
        (HEAD + SPACE + '{va = 0, pa = 0, size = "8K"}, {va = 4096, pa = 0, size = "4K"}]', "mappings[1].va: overlaps"),
        (HEAD + SPACE + '{va = 4096, pa = 0, size = "4K"}, {va = 0, pa = 0, size = "8K"}]',
         "spaces[0].mappings[1].va: overlaps spaces[0].mappings[0]"),
        (HEAD + SPACE + '{va = 0, pa = 0, size = "4K", rights = "w"}]', "mappings[0].rights: expected `str` matching"),
        (HEAD + SPACE + '{va = 0, pa = 0, size = "4K", memory_type = 9}]', "mappings[0]"),
        (HEAD + SPACE + '{va = 0, pa = 4096, size = "4G"}]', "mappings[0].size: more than 262144 entries"),
        (HEAD + "[[folios]]\npfn = 3\norder = 1", "folios[0].pfn: not aligned to the order's 0x2 pages (0x3)"),
        (HEAD + "[[folios]]\npfn = 0x100000", "folios[0].pfn: no RAM holds this folio (0x100000)"),
        (HEAD + '[[folios]]\npfn = 0\nkind = "slab"', "folios[0].kind: invalid enum value 'slab'"),
        (HEAD + "[[folios]]\npfn = 4\norder = 2\n[[folios]]\npfn = 6", "folios[1].pfn: overlaps another folio (0x6)"),
        (ARM + "[registers]\nTCR_EL1 = 0xc000", "registers.TCR_EL1: TG0 holds a reserved granule size (0x3)"),
        (ARM + "[features]\nFEAT_WARP = 1\n[[spaces]]\nname = 'A'", "features.FEAT_WARP: no feature that a walk"),
        (ARM + "[features]\npamax = 33\n[[spaces]]\nname = 'A'", "spaces[0]: the registers do not translate"),
        (HEAD + "[features]\nwarp = 1\n[[spaces]]\nname = 'A'", "spaces[0]: the registers do not translate"),
        (ARM + SPACE + "{va = 0x1000, pa = 0x1_0000_0000_0000, size = 4096}]", "spaces[0].mappings[0].pa: "),
        ("a = = 1", "not TOML: Invalid value (at line 1, column 5)"),
        ("a = " + "[" * 5000, "not TOML"),
        ("a = 1" + "0" * 5000, "not TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_their_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_over_a_description(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(HEAD)
    assert load(path, root=0x1000, registers={"CR4": 0x20}).registers["CR3"] == 0x1000
    with pytest.raises(InputError, match="base: this option belongs to raw images"):
        load(path, base=0)

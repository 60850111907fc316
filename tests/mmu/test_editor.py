"""The table editor: one place that writes, batches told in order, roll-back, undo, split and collapse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import LinuxFlags, linux_for
from ptwalk.mmu.editor import EntryChange, Reason, TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.hardware_entries import PageAttributes
from ptwalk.mmu.ranges import collapse, map_range, protect_range, split, unmap_range
from ptwalk.mmu.recorder import Recorder
from ptwalk.mmu.regime import EntryType
from ptwalk.mmu.spaces import leaves, ranges
from ptwalk.mmu.walk import Translation, outcome

from .table_regimes import BY_NAME, CASES, ROOT, TABLES, TABLES_END, Case

RW, RX = PageAttributes(), PageAttributes(write=False, execute=True)
LONG = [case for case in CASES if not case.name.startswith(("32", "PAE"))]


def executable(case: Case) -> PageAttributes:
    """Read, write and, where it cannot be forbidden, execute."""
    return PageAttributes(execute=case.name.startswith("32-bit"))


def log(editor: TableEditor) -> list[list[EntryChange]]:
    batches: list[list[EntryChange]] = []
    editor.observers.append(lambda batch: batches.append(list(batch)))
    return batches


def image(editor: TableEditor) -> bytes:
    """Roots and table frames."""
    return editor.memory.read(ROOT, TABLES_END - ROOT)  # type: ignore[attr-defined]


def shadow(batches: list[list[EntryChange]]) -> dict[int, int]:
    """What memory must hold, from nothing but what observers were told."""
    words: dict[int, int] = {}
    for batch in batches:
        for change in sorted(batch, key=lambda c: c.serial):
            assert words.get(change.pa, 0) == change.old
            words[change.pa] = change.new
    return {pa: word for pa, word in words.items() if word}


def words(editor: TableEditor) -> dict[int, int]:
    """Every entry of every linked table that is not empty."""
    size = editor.regime.trees[0].entry_size
    found = {}

    def visit(table: int, levels: tuple, entries: int) -> None:
        for i in range(entries):
            raw = editor.memory.read_uint(table + i * size, size)
            if raw:
                found[table + i * size] = raw
                entry = editor.regime.classify(levels[0], raw)
                if entry.type is EntryType.TABLE:
                    visit(entry.pa, levels[1:], levels[1].entries)

    for root, levels in {tree.root: tree.levels for tree in editor.regime.trees}.items():
        visit(root, levels, levels[0].entries)
    return found


def test_one_change_outside_a_batch_is_told_at_once():
    editor = BY_NAME["4-level"].editor()
    with editor.batch():
        slot = editor.ensure(0x1000)
    batches = log(editor)
    assert editor.write(slot, 0x5067, Reason.FAULT) == 0
    assert editor.write(slot, 0x5067, Reason.FAULT) == 0x5067, "the same value is no change"
    assert [[(c.space, c.va, c.old, c.new, c.reason, c.pa) for c in batch] for batch in batches] == [
        [("4-level", 0x1000, 0, 0x5067, Reason.FAULT, slot.pa)]
    ]
    assert editor.read(slot) == editor.memory.read_uint(slot.pa) == 0x5067


@pytest.mark.parametrize("case", LONG, ids=lambda c: c.name)
def test_a_split_adds_the_small_mappings_before_it_drops_the_large_one(case):
    editor = case.editor()
    level = editor.level(0, 1)
    size = 1 << level.shift
    map_range(editor, size, 0, size, RX, page_size=size)
    batches = log(editor)
    table = split(editor, editor.lookup(size))
    (batch,) = batches
    kinds = [(editor.maps(c.level, c.old), editor.maps(c.level, c.new)) for c in batch]
    assert kinds == [(False, True)] * (len(batch) - 1) + [(True, False)]
    assert batch[-1].level is level
    assert editor.regime.classify(level, batch[-1].new).pa == table
    assert [c.va for c in batch[:-1]] == [size + i * case.page_size for i in range(len(batch) - 1)]
    for va in (size, size + case.page_size * 7 + 5, 2 * size - 1):
        assert outcome(case.regime.walk(editor.memory, va)).pa == va - size


@pytest.mark.parametrize("case", LONG, ids=lambda c: c.name)
def test_collapse_undoes_split(case):
    editor = case.editor()
    size = 1 << editor.level(0, 1).shift
    map_range(editor, size, 3 * size, size, RX, page_size=size)
    before = [(leaf.va, leaf.entry) for leaf in leaves(editor.memory, case.regime)]
    free = editor.frames.free_frames
    split(editor, editor.lookup(size))
    slot = editor.find(size, 1)
    collapse(editor, slot)
    assert [(leaf.va, leaf.entry) for leaf in leaves(editor.memory, case.regime)] == before
    assert editor.frames.free_frames == free


def test_collapse_refuses_what_is_not_one_page():
    editor = BY_NAME["4-level"].editor()
    map_range(editor, 0, 0, 1 << 21, RW, page_size=4096)
    slot = editor.find(0, 1)
    editor.write(editor.lookup(0x3000), 0x8000_0000_0000_3065, Reason.PROTECT)
    with pytest.raises(InputError, match="does not continue the first"):
        collapse(editor, slot)
    editor.write(editor.lookup(0x3000), 0, Reason.UNMAP)
    with pytest.raises(InputError, match="is no leaf"):
        collapse(editor, slot)
    map_range(editor, 1 << 21, 4096, 1 << 21, RW, page_size=4096)
    with pytest.raises(InputError, match="not aligned to the larger size"):
        collapse(editor, editor.find(1 << 21, 1))


def test_pat_moves_between_bit_7_and_bit_12():
    """Intel SDM volume 3A tables 5-18 and 5-20: PAT is bit 12 of a 2-MByte page and bit 7 of a 4-KByte page."""
    editor = BY_NAME["4-level"].editor()
    map_range(editor, 0, 0, 1 << 21, PageAttributes(memory_type=4), page_size=1 << 21)
    assert editor.read(editor.lookup(0)) & 0x1080 == 0x1080
    split(editor, editor.lookup(0))
    assert editor.read(editor.lookup(0x2000)) == 0x8000_0000_0000_20E7
    collapse(editor, editor.find(0, 1))
    assert editor.read(editor.lookup(0)) & 0x1080 == 0x1080


def test_an_exception_takes_the_batch_back():
    editor = BY_NAME["4-level"].editor()
    map_range(editor, 0x1000, 0x1000, 0x1000, RW)
    before, free, batches = image(editor), editor.frames.free_frames, log(editor)

    def fail() -> None:
        with editor.batch():
            map_range(editor, 1 << 40, 0, 0x3000, RW)
            unmap_range(editor, 0x1000, 0x1000)
            raise RuntimeError("out")

    with pytest.raises(RuntimeError):
        fail()
    assert (image(editor)[: TABLES - ROOT], editor.frames.free_frames, batches) == (before[: TABLES - ROOT], free, [])
    assert isinstance(outcome(editor.regime.walk(editor.memory, 0x1000)), Translation)


def test_mapping_over_something_changes_nothing():
    editor = BY_NAME["4K-48"].editor()
    map_range(editor, 0x4000, 0, 0x1000, RW)
    before = words(editor)
    with pytest.raises(InputError, match="stands here already"):
        map_range(editor, 0x2000, 0, 0x4000, RW, page_size=4096)
    assert words(editor) == before
    map_range(editor, 0x20_0000, 0, 0x20_0000, RW)
    with pytest.raises(InputError, match="in the way of a table"):
        map_range(editor, 0x20_1000, 0, 0x1000, RW)


def test_unmapping_part_of_a_huge_page_splits_it_first():
    editor = BY_NAME["4-level"].editor()
    map_range(editor, 0, 0, 1 << 30, RW)
    free = editor.frames.free_frames
    assert unmap_range(editor, 0x20_1000, 0x1000) == 1
    sizes = [leaf.size for leaf in leaves(editor.memory, editor.regime)]
    assert sorted(set(sizes)) == [0x1000, 0x20_0000]
    assert sum(sizes) == (1 << 30) - 0x1000
    assert unmap_range(editor, 0, 1 << 30) == 511 + 511
    assert words(editor) == {}
    assert editor.frames.free_frames > free


def test_protect_leaves_all_else_alone():
    for case in CASES:
        editor = case.editor()
        size = 4 * case.page_size
        attributes = PageAttributes(execute=True, memory_type=3, global_=True)
        map_range(editor, 0, size, size, attributes, page_size=case.page_size)
        old = [editor.read(slot) for slot in editor.slots(0, size)]
        readonly = PageAttributes(write=False, execute=True)
        assert protect_range(editor, case.page_size, 2 * case.page_size, readonly) == 2
        new = [editor.read(slot) for slot in editor.slots(0, size)]
        write = 2 if case.regime.arch == "x86_64" else 1 << 7
        assert [a ^ b for a, b in zip(old, new, strict=True)] == [0, write, write, 0]


def test_linux_entries_that_the_hardware_refuses_count_as_mappings():
    case = BY_NAME["4-level"]
    linux = linux_for("x86_64", "7.3", case.regime)
    editor = TableEditor(case.memory(), case.regime, case.frames(), linux=linux)
    slot = editor.ensure(0x1000)
    assert editor.read(editor.find(0x1000, 1)) & 0xFFF == 0x67, "the kernel's table flags"
    raw = linux.page(1, 5, LinuxFlags.USER | LinuxFlags.WRITE)
    none = linux.modify(1, raw, LinuxFlags.USER, prot_none=True)
    batches = log(editor)
    with editor.batch():
        editor.write(slot, none, Reason.MAP)
        editor.write(editor.slot_in(slot.pa - 8, slot.level, 0x2000), linux.swap(0, 1), Reason.SWAP)
        editor.write(slot, 0, Reason.UNMAP)
    turns = [(editor.maps(c.level, c.old), editor.maps(c.level, c.new)) for c in batches[0]]
    assert turns == [(False, True), (False, False), (True, False)]


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["map", "unmap", "protect", "split", "huge"]), st.integers(0, 40), st.integers(1, 20)),
    max_size=12,
)


def apply(editor: TableEditor, case: Case, operation: tuple[str, int, int]) -> None:
    """One operation on a few pages around the border of two last-level tables."""
    name, at, count = operation
    size, huge = case.page_size, 1 << editor.level(0, 1).shift
    va = huge - 20 * size + at * size
    if name == "map":
        map_range(editor, va, va, count * size, executable(case), page_size=size)
    elif name == "unmap":
        unmap_range(editor, va, count * size)
    elif name == "protect":
        protect_range(editor, va, count * size, PageAttributes(write=False, execute=executable(case).execute))
    elif name == "split":
        split(editor, editor.lookup(va))
    else:
        map_range(editor, at % 3 * huge, 0, huge, executable(case), page_size=huge)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), OPERATIONS)
def test_observers_know_all_that_memory_holds_and_undo_restores_it(case, operations):
    editor = case.editor()
    recorder, batches = Recorder(editor), log(editor)
    states = []
    for operation in operations:
        state, told = words(editor), len(recorder.batches)
        free = editor.frames.free_frames
        try:
            apply(editor, case, operation)
        except InputError:
            assert (words(editor), len(recorder.batches), editor.frames.free_frames) == (state, told, free)
        if len(recorder.batches) > told:
            states.append((state, free))
        assert words(editor) == shadow(batches)
        for batch in batches[-1:]:
            turns = [(editor.maps(c.level, c.new), not editor.maps(c.level, c.old)) for c in batch]
            assert turns == sorted(turns, key=lambda t: {(True, True): 0, (False, False): 2}.get(t, 1))
    while states:
        state, free = states.pop()
        recorder.undo()
        assert words(editor) == state
        assert editor.frames.free_frames == free
    with pytest.raises(InputError, match="nothing is left to undo"):
        recorder.undo()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CASES), OPERATIONS)
def test_a_page_map_kept_beside_agrees(case, operations):
    """A dictionary of small pages, kept by the obvious rules, against the reference walker."""
    editor = case.editor()
    size, huge = case.page_size, 1 << editor.level(0, 1).shift
    pages: dict[int, tuple[int, bool]] = {}
    for operation in operations:
        name, at, count = operation
        va = huge - 20 * size + at * size
        try:
            apply(editor, case, operation)
        except InputError:
            continue
        span = range(va, va + count * size, size)
        if name == "map":
            pages |= {page: (page, True) for page in span}
        elif name == "huge":
            base = at % 3 * huge
            pages |= {base + offset: (offset, True) for offset in range(0, huge, size)}
        elif name == "unmap":
            pages = {page: value for page, value in pages.items() if page not in span}
        elif name == "protect":
            pages |= {page: (pages[page][0], False) for page in span if page in pages}
    found = {}
    for r in ranges(leaves(editor.memory, case.regime), physical=True):
        found |= {r.va + o: (r.pa + o, bool(r.rights & 2)) for o in range(0, r.size, size)}
    assert found == pages


def test_frames():
    frames = FrameAllocator(0x1000, 0x3000)
    first = frames.alloc()
    for call in (lambda: frames.free(0x9000), lambda: frames.claim(first), lambda: FrameAllocator(1, 2)):
        with pytest.raises(InputError):
            call()
    frames.alloc()
    with pytest.raises(InputError, match="no frame is left for a page table between 0x1000 and 0x3000"):
        frames.alloc()


def test_refusals():
    editor = BY_NAME["4-level"].editor()
    for call in (
        lambda: editor.ensure(1 << 47),
        lambda: editor.find(0, 4),
        lambda: split(editor, editor.lookup(0)),
        lambda: editor.unlink(editor.lookup(0)),
        lambda: editor.table_slots(editor.lookup(0)),
        lambda: editor.free_table(0),
        lambda: map_range(editor, 0, 0, 0x1000, RW, page_size=0x3000),
        lambda: map_range(editor, 0, 0x800, 0x1000, RW),
    ):
        with pytest.raises(InputError):
            call()
    map_range(editor, 0, 0, 0x1000, RW)
    with pytest.raises(InputError, match="smallest size"):
        split(editor, editor.lookup(0))

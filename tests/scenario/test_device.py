"""Device-private and device-exclusive entries: mappings that are not present, worked by hand."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import EntryKind
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.system import ARCHES, System
from ptwalk.rmap.views.inputs import State
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import parse

from .test_tables import tell

FOUR = "mmap A v anon 256K\nfault A v 0..3 order 0\n"


def story(text: str) -> Run:
    return run_lines(parse(text))


def kinds(machine: System, name: str) -> list[EntryKind]:
    process = machine.processes[name]
    return [
        process.linux.decode(raw.level.number, raw.raw).kind
        for raw in process.tables.raw(0, process.tables.tree.va_end)
    ]


@pytest.mark.parametrize("arch", ARCHES)
def test_pages_move_to_a_device_and_stay_mapped(arch: str) -> None:
    machine = tell(arch, FOUR + "device-private A v 1..2")
    write = EntryKind.DEVICE_PRIVATE_WRITE
    assert kinds(machine, "A") == [EntryKind.PRESENT, write, write, EntryKind.PRESENT]
    assert sorted(machine.folios) == ["F", "F2'", "F3'", "F4"]
    moved = machine.folios["F2'"]
    assert (moved.is_device_private, moved.refs, moved.exclusive[0]) == (True, 1, 1)
    assert all(model.mapcount(moved) == 1 for model in machine.acct.models.values())
    forked = tell(arch, FOUR + "device-private A v 1..2\nfork A B")
    read = EntryKind.DEVICE_PRIVATE_READ
    assert kinds(forked, "A")[1:3] == kinds(forked, "B")[1:3] == [read, read]
    assert (forked.folios["F2'"].refs, forked.folios["F2'"].exclusive[0]) == (2, 0)
    back = tell(arch, FOUR + "device-private A v 1..2\nfork A B\nread B v 1\nmremap A v at 0x3_0000_0000\nzap A v 2")
    assert kinds(back, "A") == [EntryKind.PRESENT] * 3
    assert kinds(back, "B") == [EntryKind.PRESENT, EntryKind.PRESENT, read, EntryKind.PRESENT]
    assert not back.folios["F2''"].is_device_private
    assert tell(arch, FOUR + "device-private A v\nfork A B\nexit A\nexit B").folios == {}


def test_smaps_counts_device_pages_and_a_write_brings_them_back() -> None:
    run = story(FOUR + "device-private A v\nfork A B\nwrite A v 2")
    assert run.steps[-1].notes[0] == "F3' moved to F3''"
    for model in MODELS:
        for name in "AB":
            shown = run.steps[-1].snapshot.processes[name][model]
            assert shown["Rss"] == 16
        assert run.steps[-1].snapshot.system[model]["AnonPages"] == 4 * 4 + 4  # the copied page
    assert story(FOUR + "device-private A v\nmprotect A v ro\nmprotect A v rw\nread A v 0").steps[-1].notes == [
        "F' moved to F''"
    ]


def test_a_large_folio_is_split_on_its_way_to_the_device() -> None:
    machine = tell("x86_64", "mmap A v anon 2M\nfault A v\ndevice-private A v 0..1")
    assert kinds(machine, "A")[:3] == [EntryKind.DEVICE_PRIVATE_WRITE] * 2 + [EntryKind.PRESENT]
    stays = story("mmap A v anon 2M\nfault A v\npin A v 7\ndevice-private A v 0..1")
    assert stays.steps[-1].notes == ["F may be pinned and stays"]


@pytest.mark.parametrize("arch", ARCHES)
def test_device_exclusive_moves_no_counter(arch: str) -> None:
    machine = tell(arch, FOUR + "device-exclusive A v 1")
    assert kinds(machine, "A")[1] is EntryKind.DEVICE_EXCLUSIVE
    folio = machine.folios["F2"]
    assert (folio.refs, folio.exclusive[0]) == (1, 1)
    assert all(model.mapcount(folio) == 1 for model in machine.acct.models.values())
    (leaf,) = [leaf for leaf in machine.processes["A"].leaves(0, 1 << 40) if leaf.folio is folio]
    assert leaf.state is State.DEVICE_EXCLUSIVE
    forked = tell(arch, FOUR + "device-exclusive A v 1\nfork A B")  # fork restores the entry first
    assert set(kinds(forked, "A") + kinds(forked, "B")) == {EntryKind.PRESENT}
    assert (forked.folios["F2"].refs, forked.folios["F2"].exclusive[0]) == (2, 0)
    again = tell(arch, FOUR + "device-exclusive A v 1\nread A v 1")
    assert all(leaf.write for leaf in again.processes["A"].leaves(0, 1 << 40))
    assert tell(arch, FOUR + "device-exclusive A v 1\nzap A v").folios == {}
    moved = tell(arch, FOUR + "device-exclusive A v 1\nmigrate F2\nswapout A v 2")
    assert "F2'" in moved.folios


def test_what_is_shared_is_copied_before_a_device_has_it_alone() -> None:
    run = story(FOUR + "fork A B\ndevice-exclusive A v 1")
    assert run.steps[-1].notes == ["copied: page 0 of F2 to F2+0'"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FOUR + "device-private A v 9", "A maps no anonymous page there"),
        (FOUR + "device-private A v 0\npin A v 0", "the entry is device-private; read brings the page back"),
        (FOUR + "mprotect A v ro\ndevice-exclusive A v 1", "only writable anonymous memory"),
        (FOUR + "device-private A v 0\nmerge A v 0 A v 1", "the entry is device-private"),
        ("mmap A v hugetlb 2M\nfault A v\ndevice-private A v", "not done to hugetlb pages"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        story(text)

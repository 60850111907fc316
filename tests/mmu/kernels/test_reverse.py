"""The reverse map inverts the leaves of the reference enumeration: nothing lost, nothing invented, order kept."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from ptwalk.arch.errors import InputError
from ptwalk.mmu import spaces
from ptwalk.mmu.kernels.reverse import ReverseMap, Site, ptov, reverse_map
from ptwalk.mmu.machine import Machine, Space, regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory

from .test_spaces import tame

MODES = ["x86-4level", "x86-5level", "arm64-4k-48", "arm64-16k-lpa2", "arm64-64k-52"]


def inverted(memory, regimes):
    """By (page shift, frame) the sites, spaces in order and addresses ascending."""
    found = defaultdict(list)
    for name, regime in regimes.items():
        for leaf in spaces.leaves(memory, regime):
            found[leaf.level.shift, leaf.pa >> leaf.level.shift].append((name, leaf.va))
    return found


@pytest.mark.parametrize("folder", [False, True], ids=["memory", "files"])
@pytest.mark.parametrize("mode", MODES)
def test_every_leaf_is_found_from_its_frame(mode, folder, tmp_path):
    memory, regime = tame(mode, 5)
    regimes = {"first": regime, "second": regime}
    wanted = inverted(memory, regimes)
    built = reverse_map(memory, regimes, threads=2, folder=tmp_path if folder else None)
    assert len(built) == sum(map(len, wanted.values())) > 100
    for (shift, frame), sites in wanted.items():
        for offset in (0, (1 << shift) - 1):
            got = [site for site in built.lookup((frame << shift) + offset) if site.page_shift == shift]
            assert got == [Site(name, va + offset, shift) for name, va in sites]
    pages = {frame for shift, frame in wanted if shift == built.page_shift}
    free = next(frame for frame in range(1 << 20) if frame not in pages)
    assert all(site.page_shift > built.page_shift for site in built.lookup(free << built.page_shift))


def test_radix_order_equals_a_stable_sort():
    """Frames spread over many buckets, several sites a frame."""
    rng = np.random.default_rng(11)
    memory = PhysicalMemory()
    memory.add_ram(0, 1 << 32)
    words = np.frombuffer(memory.banks[0].data, np.uint64)
    words[512], words[1024] = 0x2007, 0x3007
    for i in range(64):
        words[1536 + i] = (0x100 + i) << 12 | 7
        words[(0x100 + i) * 512 : (0x101 + i) * 512] = rng.integers(0, 3 << 17, 512, np.uint64) * np.uint64(
            4096 * 3
        ) | np.uint64(7)
    regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    built = reverse_map(memory, {"a": regime})
    frames = words[0x100 * 512 : 0x140 * 512] >> np.uint64(12)
    order = np.argsort(frames, kind="stable")
    inside = order[frames[order] < 1 << 20]
    assert built.mappings.tolist() == inside.tolist()
    assert len(np.unique(frames[inside] >> np.uint64(14))) > 30
    assert built.starts.tolist() == np.searchsorted(frames[inside], np.arange((1 << 20) + 1)).tolist()
    assert len(built) == 64 * 512


def test_ptov_asks_all_spaces_of_a_machine():
    memory = PhysicalMemory()
    memory.add_ram(0, 1 << 20)
    for pa, entry in ((0x1FF8, 0x2007), (0x2FF8, 0x3007), (0x3008, 0x4007), (0x4018, 0x5007), (0x3010, 0x20_0087)):
        memory.write_uint(pa, entry)
    machine = Machine("x86_64", memory, {"CR3": 0x1000})
    assert ptov(machine, 0x5123) == [Site("", 0xFFFF_FFFF_C020_3123, 12)]
    assert ptov(machine, 0x21_0001) == [Site("", 0xFFFF_FFFF_C041_0001, 21)]
    assert ptov(machine, 0x9000) == []
    machine.spaces = {name: Space(name, {"CR3": 0x1000}) for name in ("init", "sh")}
    assert [site.space for site in ptov(machine, 0x5FFF)] == ["init", "sh"]


def test_spaces_of_different_page_sizes_are_refused():
    small, large = tame("arm64-4k-48", 1)[1], tame("arm64-64k-52", 1)[1]
    with pytest.raises(InputError, match=r"share a page size, these have \[4096, 65536\]"):
        reverse_map(tame("arm64-4k-48", 1)[0], {"small": small, "large": large})


def test_no_space_at_all():
    built = reverse_map(PhysicalMemory(), {})
    assert (len(built), built.lookup(0x1000)) == (0, [])
    assert isinstance(built, ReverseMap)

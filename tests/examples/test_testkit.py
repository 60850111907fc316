"""The test suites in examples/testkit pass as they are (pytest collects them), and fail where the tables are wrong."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest

from ptwalk.arch.x86_64.entries import PDE_2M
from ptwalk.loaders import load
from ptwalk.testing import assert_translates

pytest_plugins = ["pytester"]

TESTKIT = Path(__file__).parents[2] / "examples" / "testkit"
KERNEL_CODE = 0x100_0000  # by its /proc/iomem
DIRECT_MAP = 0xFF30_9C7E_C000_0000  # QEMU's `info tlb` has the lowest of the upper half there


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Path:
    folder = pytester.path / "testkit"
    shutil.copytree(TESTKIT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(pytester: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", *arguments)


def test_writable_kernel_code_is_found_through_the_direct_map(pytester: pytest.Pytester, suite: Path) -> None:
    image = suite / "linux-6.1.elf.xz"
    plain = pytester.path / "linux.elf"
    plain.write_bytes(lzma.decompress(image.read_bytes()))
    leaf = assert_translates(load(plain), DIRECT_MAP + KERNEL_CODE, KERNEL_CODE, mode="kernel").entry
    assert leaf is not None
    entry, writable = (word.to_bytes(8, "little") for word in (leaf, leaf | PDE_2M["RW"].mask))
    data = plain.read_bytes()
    assert data.count(entry) == 1
    image.write_bytes(lzma.compress(data.replace(entry, writable)))
    result = run(pytester, suite / "test_linux_tables.py")
    result.assert_outcomes(failed=2, passed=12)  # the test of the code's rights, and QEMU's listing
    result.stdout.fnmatch_lines(
        [
            f"E*physical {KERNEL_CODE:#018x}-* is reached (kernel -w-, user ---) from",
            "E*PDE/PMD*|PS|*leaf*",
        ]
    )


def test_a_forgotten_reserved_node_is_found_in_every_mode(pytester: pytest.Pytester, suite: Path) -> None:
    code = suite / "test_device_tree.py"
    text = code.read_text()
    assert text.count("in tree.reserved)") == 1
    code.write_text(text.replace("in tree.reserved)", "in tree.reserved[1:])"))
    result = run(pytester, code, "-k", "reserved_node")
    result.assert_outcomes(failed=10)
    result.stdout.fnmatch_lines(["E*physical 0x0000000047800000-0x0000000048000000 is reached (kernel rw-, user ---)*"])


def test_page_tables_that_round_inwards_are_found_where_pages_are_large(pytester: pytest.Pytester, suite: Path) -> None:
    """The node at 0x43ff1000 is aligned to 4K pages only."""
    code = suite / "test_device_tree.py"
    text = code.read_text()
    assert text.count("start // page * page") == 1
    code.write_text(text.replace("start // page * page", "-(-start // page) * page"))
    run(pytester, code, "-k", "reserved_node").assert_outcomes(failed=7, passed=3)


def test_a_page_with_a_right_too_many_is_shown_with_its_walk(pytester: pytest.Pytester, suite: Path) -> None:
    """Had /proc/PID/maps said r-- everywhere, A's writable pages would be wrong."""
    code = suite / "test_process_maps.py"
    text = code.read_text()
    assert text.count("Area(int(start, 16), int(end, 16), rights)") == 1
    text = text.replace("Area(int(start, 16), int(end, 16), rights)", 'Area(int(start, 16), int(end, 16), "r--")')
    code.write_text(text.replace('Path(__file__).parents[1] / "captures"', f'Path("{TESTKIT.parent}/captures")'))
    result = run(pytester, code, "-k", "nopti-swap")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*AssertionError: 0x* does not fault as expected: it translates", "E*PTE/PTE*[[]leaf]"]
    )

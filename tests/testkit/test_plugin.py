"""The plugin in a pytest of its own, as in somebody's suite (pytest's `pytester`)."""

from __future__ import annotations

import io
import json
import lzma
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ptwalk.loaders.presets import PRESETS

pytest_plugins = ["pytester"]

DATA = Path(__file__).parents[1] / "data"
LONG4 = DATA / "x86_64" / "long4.npz"
RMAP = DATA / "rmap" / "rmap_N32.jsonl.xz"


CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # pytester moves the home folder


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the inner pytest find the kernels that are compiled already."""
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)


def run(pytester: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    """In a process of its own: pytester forgets modules that an inner run imports, and classes would exist twice."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_layout_a_path_and_an_image(pytester: pytest.Pytester) -> None:
    """The image is made by hand: entry values as Intel's manual has them, nothing of ptwalk's in them."""
    pytester.makepyfile(
        r'''
        import struct
        from pathlib import Path
        from ptwalk.testing import assert_faults, assert_same_mappings, assert_translates

        LAYOUT = """
        preset = "x86_64-4level"
        memory = [{ start = 0, size = "1M" }]
        spaces = [{ name = "A", mappings = [{ va = "0x40_0000", pa = "0x8000", size = "4K", rights = "r-x" }] }]
        """

        def image():
            tables = bytearray(0x9000)
            for pa, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3010, 0x4007), (0x4000, 0x8025)):
                struct.pack_into("<Q", tables, pa, entry)
            return tables

        def test_image_and_layout_map_the_same(ptwalk_machine):
            made = ptwalk_machine(image(), preset="x86_64-4level", root=0x1000)
            described = ptwalk_machine(LAYOUT)
            assert_translates(made, 0x400123, 0x8123, access="execute")
            assert_faults(made, 0x400123, access="write", code=0x7)
            assert_same_mappings(made, described)
            assert made.source != described.source

        def test_path(ptwalk_machine, tmp_path):
            (tmp_path / "tables").write_bytes(image())
            for path in (tmp_path / "tables", str(tmp_path / "tables")):
                assert_translates(ptwalk_machine(path, arch="x86_64", root=0x1000), 0x400123, 0x8123)
        '''
    )
    run(pytester).assert_outcomes(passed=2)


def test_a_failure_shows_the_walk_and_not_the_kit(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from ptwalk.testing import assert_translates

        def test_text(ptwalk_machine):
            machine = ptwalk_machine(bytes(0x2000), preset="x86_64-4level", root=0x1000)
            assert_translates(machine, 0xFFFF_FFFF_8000_0000, 0x20_0000, mode="kernel", access="execute")
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_translates(machine, 0xFFFF_FFFF_8000_0000*",
            "E*AssertionError: 0xffffffff80000000 (execute, kernel) does not translate as expected: it faults",
            "E*PML4E/PGD*0x0000000000001ff8 => 0x0000000000000000*",
            "E*FAULT #PF code 0x10 at level 4*",
        ]
    )
    result.stdout.no_fnmatch_line("*testing.py*")


def test_every_paging_mode(pytester: pytest.Pytester) -> None:
    """One page, described once, in each paging mode and granule."""
    pytester.makepyfile(
        '''
        import pytest
        from ptwalk.testing import assert_translates

        def check(machine):
            assert_translates(machine, 0x1_0123, 0x80_0123)

        def layout(mode):
            return f"""
            preset = "{mode}"
            memory = [{{ start = 0, size = "64M" }}]
            spaces = [{{ name = "A", mappings = [{{ va = "0x1_0000", pa = "0x80_0000", size = "64K" }}] }}]
            """

        def test_all(ptwalk_machine, paging_mode):
            check(ptwalk_machine(layout(paging_mode)))

        @pytest.mark.paging_modes("arm64-4k-52", "x86_64")
        def test_chosen(ptwalk_machine, paging_mode):
            check(ptwalk_machine(layout(paging_mode)))
        '''
    )
    result = run(pytester, "-v", "--strict-markers")
    chosen = ["arm64-4k-52", *(name for name, p in PRESETS.items() if p.arch == "x86_64")]
    result.assert_outcomes(passed=len(PRESETS) + len(chosen))
    result.stdout.fnmatch_lines_random([f"*test_chosen?{name}? PASSED*" for name in chosen])


def test_a_paging_mode_that_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.paging_modes("x86_64-6level")
        def test_six(paging_mode):
            pass
        """
    )
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["paging_modes: no preset or architecture x86_64-6level (presets: x86_64-4level, *"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_vector_files_named_on_the_command_line(pytester: pytest.Pytester) -> None:
    """Golden vectors from emulators (x86) and from the kernel's own functions (rmap); data/ tells where from."""
    result = run(pytester, "-v", LONG4, RMAP)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*long4.npz*reference* PASSED*", "*long4.npz*kernel* PASSED*", "*jsonl.xz*models* PASSED*"]
    )


def test_vector_files_of_a_folder_by_their_pattern(pytester: pytest.Pytester) -> None:
    pytester.mkdir("vectors")
    for name in ("vectors/long4.npz", "other.npz"):
        shutil.copy(LONG4, pytester.path / name)
    run(pytester, "--collect-only").assert_outcomes()
    pytester.makeini("[pytest]\nptwalk_vectors = vectors/*.npz\n")
    result = run(pytester, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["vectors/long4.npz::reference", "vectors/long4.npz::kernel", "", "2 tests collected*"])


def test_a_wrong_answer_is_named(pytester: pytest.Pytester) -> None:
    with np.load(LONG4) as file:
        arrays = dict(file)
    case = int(np.flatnonzero(arrays["o_vec"] == 255)[3])
    arrays["o_pa"] = arrays["o_pa"].copy()
    arrays["o_pa"][case] ^= np.uint64(1 << 12)
    np.savez(pytester.path / "wrong.npz", **arrays)
    lines = [json.loads(line) for line in lzma.decompress(RMAP.read_bytes()).splitlines()[:2]]
    (pytester.path / "rmap.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(pytester, "wrong.npz", "rmap.jsonl")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*wrong.npz?reference?*",
            f"*case {case} (reference): o_pa is *, expected *",
            f"*case {case} (kernel): o_pa is *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_file_that_cannot_be_used_is_told_in_a_sentence(pytester: pytest.Pytester) -> None:
    cut = io.BytesIO(LONG4.read_bytes()[:5000])
    (pytester.path / "cut.npz").write_bytes(cut.getvalue())
    (pytester.path / "cut.jsonl").write_text('{"model":')
    result = run(pytester, "cut.npz", "cut.jsonl")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*cut.npz: not a readable vector file*", "*cut.jsonl: *line 1*"])
    result.stdout.no_fnmatch_line("*raise InputError*")


def test_an_engine_that_does_not_take_a_file_is_skipped_by_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import ptwalk.conform
        from ptwalk.mmu.conform import ConformReport

        def refuse(path, engines):
            report = ConformReport(str(path), "arm64", 3, "arm")
            if engines == ("kernel",):
                report.refused["kernel"] = "3 of 3 cases are the reference walker's (FEAT_NEW 3)"
            else:
                report.compare("reference", 0, "o_pa", 1, 1)
            return report

        ptwalk.conform.conform = refuse
        """
    )
    (pytester.path / "new.npz").touch()
    result = run(pytester, "-rs", "new.npz")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*the kernel does not take this file: 3 of 3 cases*FEAT_NEW 3*"])


def test_a_suite_that_uses_none_of_it_imports_none_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_light():
            assert "ptwalk.pytest_plugin" in sys.modules
            assert not [name for name in sys.modules if name.split(".")[0] in ("numpy", "numba")]
            assert not [name for name in sys.modules if name.startswith(("ptwalk.mmu", "ptwalk.loaders"))]
        """
    )
    run(pytester).assert_outcomes(passed=1)

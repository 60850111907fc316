"""The capture script's parts that need no privilege; whole captures by it are in tests/data/loaders."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ptwalk import live_capture
from ptwalk.live_capture import Btf, CaptureError, frames, pagemap


def _btf() -> bytes:
    """struct a { int x; struct { long y; union { int z; }; }; }; by hand, after Documentation/bpf/btf.rst."""
    strings = b"\0int\0a\0x\0y\0z\0"
    name = {text: strings.index(text.encode() + b"\0") for text in ("int", "a", "x", "y", "z")}
    types = struct.pack("<IIII", name["int"], 1 << 24, 4, 32)  # 1: int
    types += struct.pack("<III", 0, 5 << 24 | 1, 4) + struct.pack("<III", name["z"], 1, 0)  # 2: union
    types += struct.pack("<III", 0, 4 << 24 | 2, 16)  # 3: unnamed struct
    types += struct.pack("<III", name["y"], 1, 0) + struct.pack("<III", 0, 2, 64)
    types += struct.pack("<III", name["a"], 1 << 31 | 4 << 24 | 2, 24)  # 4: struct a, with the bit-field flag
    types += struct.pack("<III", name["x"], 1, 0) + struct.pack("<III", 0, 3, 64)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_btf_finds_members_in_unnamed_structs() -> None:
    btf = Btf(_btf())
    assert [btf.offset("a", member) for member in "xyz"] == [0, 8, 16]
    for struct_name, member in (("a", "q"), ("b", "x")):
        with pytest.raises(CaptureError, match=f"no {struct_name}.{member}"):
            btf.offset(struct_name, member)
    with pytest.raises(CaptureError, match="no little-endian BTF"):
        Btf(bytes(64))


def test_frames_of_system_ram() -> None:
    text = "00001000-0009ffff : System RAM\n  00002000-00002fff : Kernel\n100000000-1ffffffff : System RAM\n"
    assert frames(text, 12) == (1, 0x200000)
    assert frames("", 12) == (0, 0)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="no /proc/PID/pagemap here")
def test_pagemap_of_this_process() -> None:
    shift = os.sysconf("SC_PAGESIZE").bit_length() - 1
    index, words = pagemap(os.getpid(), shift)
    areas = json.loads(index)
    assert sum(area[3] for area in areas) * 8 == len(words)
    assert all(int(end, 16) - int(start, 16) == count << shift for start, end, _, count in areas)


def test_refusals_are_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live_capture.main([str(tmp_path / "out.tar.xz"), "--pid", "99999999"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("live_capture: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out.tar.xz").exists()


def test_the_script_imports_nothing_but_the_standard_library() -> None:
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(sorted(set(m.split('.')[0] for m in sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(live_capture.__file__)], capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(result.stdout))
    assert loaded <= {*sys.stdlib_module_names, "__main__", "_distutils_hack"}

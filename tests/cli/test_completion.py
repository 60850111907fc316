"""`ptwalk --install-completion`: the script it installs, asked by bash itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory after `ptwalk --install-completion` in bash."""
    folder = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "ptwalk", "--install-completion", "--shell", "bash"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HOME": str(folder)})
    return folder


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["wa"], ["walk"]),
        (["r"], ["report", "repl", "rmap"]),
        (["rmap", "ex"], ["explore"]),
        (["walk", "--acc"], ["--access"]),
        (["walk", "capt"], ["capture.tar.xz"]),
        (["rmap", "run", "sto"], ["story.scn"]),
        (["walk", "capture.tar.xz", "0x1000", "--access", ""], ["read", "write", "execute"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_what_bash_offers(home: Path, tmp_path: Path, typed: list[str], offered: list[str]) -> None:
    for name in ("capture.tar.xz", "story.scn"):
        (tmp_path / name).touch()
    script = 'source ~/.bashrc; COMP_WORDS=(ptwalk "$@"); COMP_CWORD=$#; _ptwalk; printf "%s\\n" "${COMPREPLY[@]}"'
    result = subprocess.run(
        ["bash", "-c", script, "bash", *typed],
        cwd=tmp_path, env={**os.environ, "HOME": str(home)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert sorted(result.stdout.split()) == sorted(offered)
    assert not result.stderr

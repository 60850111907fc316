"""The pytest plugin: fixtures that build machines, paging modes as parameters, vector files as test cases.

- `ptwalk_machine(source, **options)`: a Machine from a file, or from the text of a layout description.
- `paging_mode`: each preset in turn; `@pytest.mark.paging_modes("x86_64-4level", ...)` chooses.
- `--ptwalk-vectors FILE` (repeatable): one test item for each engine that runs the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .mmu.machine import Machine


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ptwalk")
    group.addoption(
        "--ptwalk-vectors", action="append", default=[], metavar="FILE", help="run a vector file (.npz) as test cases"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "paging_modes(*presets): the paging modes that `paging_mode` runs through")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "paging_mode" in metafunc.fixturenames:
        from .loaders.presets import PRESETS

        marker = metafunc.definition.get_closest_marker("paging_modes")
        chosen = list(marker.args) if marker else list(PRESETS)
        if unknown := [name for name in chosen if name not in PRESETS]:
            raise pytest.UsageError(f"paging_modes: no preset {', '.join(unknown)} (there are: {', '.join(PRESETS)})")
        metafunc.parametrize("paging_mode", chosen)


@pytest.fixture
def ptwalk_machine(tmp_path: Path) -> Callable[..., Machine]:
    """A function that builds a Machine from a path, or from the text of a layout description (docs/layouts.md)."""
    from .loaders import load

    def build(source: str | Path, **options: Any) -> Machine:
        if isinstance(source, str) and "\n" in source:
            path = tmp_path / "layout.toml"
            path.write_text(source, encoding="utf-8")
            return load(path, **options)
        return load(source, **options)

    return build


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    for name in session.config.getoption("--ptwalk-vectors") or []:
        path = Path(name)
        if not path.is_file():
            raise pytest.UsageError(f"--ptwalk-vectors: no file {name}")
        items.extend(VectorFile.from_parent(session, path=path.absolute()).collect())


class VectorFile(pytest.File):
    """One vector file; each engine's run is one item."""

    def collect(self) -> Iterator[pytest.Item]:
        for engine in ("reference", "kernel"):
            yield VectorRun.from_parent(self, name=engine)


class VectorRun(pytest.Item):
    """All cases of one vector file through one engine."""

    def runtest(self) -> None:
        from .conform import conform

        report = conform(self.path, engines=(self.name,))
        if not report.ok:
            raise VectorMismatch(report.text())

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.path.name}[{self.name}]"


class VectorMismatch(AssertionError):
    """A vector file disagrees with an engine; the text is the report."""

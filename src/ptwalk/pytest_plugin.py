"""The pytest plugin: machines from layouts and images, paging modes as parameters, vector files as test cases.

pytest finds it once ptwalk is installed (docs/howto/own-tables.md).

- `ptwalk_machine(source, **options)`: a Machine from a file, the bytes of an image, or the text of a layout.
- `paging_mode`: each preset in turn; `@pytest.mark.paging_modes("arm64", "x86_64-5level")` chooses presets, or all of
  an architecture.
- Vector files (`.npz`, and `.jsonl` or `.jsonl.xz` of the rmap accounting) are collected where they are named on the
  command line, and in a folder where the setting `ptwalk_vectors` holds a pattern for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .mmu.machine import Machine

_ENGINES = {".npz": ("reference", "kernel"), ".jsonl": ("models",), ".jsonl.xz": ("models",)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("ptwalk_vectors", "patterns of the vector files to run, e.g. vectors/*.npz", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "paging_modes(*names): presets or architectures that `paging_mode` runs through")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "paging_mode" in metafunc.fixturenames:
        from .loaders.presets import PRESETS

        marker = metafunc.definition.get_closest_marker("paging_modes")
        wanted = marker.args if marker else tuple(PRESETS)
        if unknown := set(wanted) - {name for p in PRESETS.values() for name in (p.name, p.arch)}:
            text = f"paging_modes: no preset or architecture {', '.join(sorted(unknown))}"
            pytest.fail(f"{text} (presets: {', '.join(PRESETS)})", pytrace=False)
        metafunc.parametrize("paging_mode", [p.name for p in PRESETS.values() if {p.name, p.arch} & set(wanted)])


@pytest.fixture
def ptwalk_machine(tmp_path: Path) -> Callable[..., Machine]:
    """A function: a Machine from a path, the bytes of an image, or the text of a layout description.

    The options are those of `ptwalk.loaders.load`; an image needs `arch` or `preset`, and `root`.
    """
    from .loaders import load

    numbers = count(1)

    def build(source: str | Path | bytes | bytearray | memoryview, **options: Any) -> Machine:
        if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source):
            return load(source, **options)
        path = tmp_path / f"ptwalk-{next(numbers)}.{'toml' if isinstance(source, str) else 'img'}"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return load(path, **options)

    return build


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> VectorFile | None:
    suffix = "".join(file_path.suffixes[-2:]) if file_path.suffix == ".xz" else file_path.suffix
    patterns = parent.config.getini("ptwalk_vectors")
    if suffix in _ENGINES and (parent.session.isinitpath(file_path) or any(map(file_path.match, patterns))):
        file: VectorFile = VectorFile.from_parent(parent, path=file_path)
        file.engines = _ENGINES[suffix]
        return file
    return None


class VectorFile(pytest.File):
    """One vector file; each engine's run is one item."""

    engines: tuple[str, ...] = ()

    def collect(self) -> Iterator[pytest.Item]:
        for engine in self.engines:
            yield VectorRun.from_parent(self, name=engine)


class VectorRun(pytest.Item):
    """All cases of one vector file through one engine."""

    def runtest(self) -> None:
        if self.name == "models":
            from .rmap.conform import conform as conform_rmap

            accounts = conform_rmap(self.path)
            if not accounts.ok:
                raise VectorMismatch(str(accounts))
            return
        from .conform import conform

        report = conform(self.path, engines=(self.name,))
        if why := report.refused.get(self.name):
            self.add_report_section("call", "ptwalk", f"not taken by the {self.name}: {why}")
            if self.name not in report.fields:
                pytest.skip(f"the {self.name} does not take this file: {why}")
        if not report.ok:
            raise VectorMismatch(report.text())

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """The report, or the sentence that says why the file cannot be used, without a traceback."""
        from .arch.errors import PtwalkError

        if isinstance(excinfo.value, VectorMismatch | PtwalkError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.path.name}[{self.name}]"


class VectorMismatch(AssertionError):
    """A vector file disagrees with an engine; the text is the report."""

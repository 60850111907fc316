"""Runs a file of accounting vectors and names the first difference (`ptwalk rmap conform FILE`).

A file is one JSON object per line, plain or xz-compressed: a model, folios, and steps with every counter after each
step. The models run literally, since such files record what the kernel's own functions, or the posted patches, did.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..arch.errors import InputError
from .calls import Accounting
from .errors import FreeError, Rejected
from .folio import Flags, Folio, Kind
from .levels import Rules
from .models import Model
from .models.entire import EntireMapcountModel
from .models.precise import Precise
from .models.total_mapped_pages import TotalMappedPages
from .stream import LEVEL_NAMES, Run, Stream

MODEL_NAMES = {"P": "precise", "N": "no-page-mapcount", "T": "total-mapped-pages"}
KINDS = {
    "anon": Kind.ANON,
    "anon_devpriv": Kind.ANON,
    "file": Kind.FILE,
    "shmem": Kind.SHMEM,
    "huge_anon": Kind.HUGETLB_ANON,
    "huge_file": Kind.HUGETLB_FILE,
}
MAX_ORDER = 22
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Difference:
    """The first difference of one sequence: step numbers count from 0, `field` is the vectors' name."""

    sequence: str
    step: int
    op: str
    field: str
    got: object
    want: object

    def __str__(self) -> str:
        return f"{self.sequence} step {self.step} {self.op}: {self.field} is {self.got}, expected {self.want}"


@dataclass
class ConformReport:
    """What was compared; `difference` is the first one in the file, None if all agree.

    >>> ConformReport(Path("x.jsonl"), 2, 10, 120).ok
    True
    """

    path: Path
    sequences: int = 0
    steps: int = 0
    values: int = 0
    failed_sequences: int = 0
    difference: Difference | None = None

    @property
    def ok(self) -> bool:
        """Whether every value agreed."""
        return self.difference is None

    def __str__(self) -> str:
        done = f"{self.path}: {self.sequences} sequences, {self.steps} steps, {self.values} values"
        if self.difference is None:
            return f"{done}, all agree"
        return f"{done}, {self.failed_sequences} sequences differ; first: {self.difference}"


class _Differs(Exception):
    def __init__(self, field: str, got: object, want: object) -> None:
        self.field, self.got, self.want = field, got, want


def conform(path: str | Path) -> ConformReport:
    """Run every sequence of the file; raises InputError, with the line, for a file that cannot be understood."""
    report = ConformReport(Path(path))
    for number, sequence in read_sequences(report.path):
        try:
            difference = run_sequence(sequence, report)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problem = f"line {number}: not a sequence of rmap vectors ({type(error).__name__}: {error})"
            raise InputError(problem, file=path) from error
        except InputError as error:
            raise InputError(f"line {number}: {error}", file=path) from error
        report.sequences += 1
        if difference is not None:
            report.failed_sequences += 1
            report.difference = report.difference or difference
    if not report.sequences:
        raise InputError("no sequence in the file", file=path)
    return report


def read_sequences(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line number and object of each line; raises InputError for an unreadable, cut or malformed file."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(6)[:6] == b"\xfd7zXZ\x00"
            with lzma.open(raw) if packed else raw as lines:
                yield from _parse_lines(path, lines)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    except (lzma.LZMAError, EOFError) as error:
        raise InputError(f"damaged or cut xz data: {error}", file=path) from error


def _parse_lines(path: Path, lines: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while line := lines.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise InputError(f"line {number} is longer than {MAX_LINE_BYTES} bytes", file=path)
        if not line.strip():
            continue
        try:
            sequence = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number}: not JSON: {error}", file=path) from error
        if not isinstance(sequence, dict):
            raise InputError(f"line {number}: not a JSON object", file=path)
        yield number, sequence


def run_sequence(sequence: dict[str, Any], report: ConformReport) -> Difference | None:
    """Run one sequence and return its first difference; counts steps and values in the report."""
    runner = SequenceRunner(sequence)
    for number, step in enumerate(sequence["steps"]):
        try:
            report.values += runner.step(step)
        except _Differs as found:
            op = json.dumps(step["op"])
            return Difference(str(sequence["id"]), number, op, found.field, found.got, found.want)
        report.steps += 1
    try:
        for folio in runner.stream.folios:
            runner.acct.free(folio)
    except FreeError as error:
        return Difference(str(sequence["id"]), len(sequence["steps"]), "free", error.field, error.value, error.expected)
    return None


class SequenceRunner:
    """One sequence: its accounting, its folios, and the operations by name."""

    def __init__(self, sequence: dict[str, Any]) -> None:
        letter, bits = sequence["model"], sequence.get("word", 64)
        if letter not in MODEL_NAMES or bits not in (32, 64):
            raise InputError(f"unknown model {letter!r} or word size {bits!r}")
        self.acct = Accounting([MODEL_NAMES[letter]], rules=Rules(bits=bits, literal=True))
        self.stream = Stream(self.acct, tuple(sequence["locked"]))
        self.stream.folios = [self._folio(*entry) for entry in sequence["folios"]]
        self.stream.page_cache_runs = self._recorded_runs
        self.recorded: list[list[Any]] = []
        self.compared = 0
        s = self.stream
        self.ops: dict[str, Callable[..., int | None]] = {
            "new": lambda f, m, x: s.new(f, m, bool(x)),
            "add": lambda f, m, lv, a, n, x: s.add(f, m, LEVEL_NAMES[lv], a, n, bool(x)),
            "rem": lambda f, m, lv, a, n: s.rem(f, m, LEVEL_NAMES[lv], a, n),
            "dup": lambda f, src, dst, lv, a, n: s.dup(f, src, dst, LEVEL_NAMES[lv], a, n),
            "share": lambda f, lv, a: s.share(f, LEVEL_NAMES[lv], a),
            "wp": s.wp,
            "pin": s.pin,
            "unpin": s.unpin,
            "swc": lambda f, v: s.swc(f, bool(v)),
            "fork": lambda src, dst, files: s.fork(src, dst, bool(files)),
            "exit": s.exit,
            "split": s.split,
            "splitpud": s.splitpud,
            "unmap": lambda f, m, lv, a, n: s.unmap(f, m, LEVEL_NAMES[lv], a, n),
        }

    def _folio(self, order: int, kind: str, preset: int) -> Folio:
        if kind not in KINDS or type(order) is not int or not 0 <= order <= MAX_ORDER:
            raise InputError(f"folio of unknown kind {kind!r} or of order {order!r} outside 0..{MAX_ORDER}")
        folio = self.acct.folio(order, KINDS[kind], fresh=False if preset else None)
        if kind == "anon_devpriv":
            folio.flags |= Flags.DEVICE_PRIVATE
        return folio

    def step(self, step: dict[str, Any]) -> int:
        """Do one step, compare everything it states, and return how many values were compared."""
        name, *arguments = step["op"]
        if name not in self.ops:
            raise InputError(f"unknown operation {name!r}")
        if not all((type(value) is int and value >= 0) or value in LEVEL_NAMES for value in arguments):
            raise InputError(f"operation with an argument that is neither a number nor a level: {step['op']!r}")
        self.compared = 0
        self.recorded = step.get("calls", [])
        del self.stream.calls[:]
        rejected = None
        try:
            self.ops[name](*arguments)
        except Rejected as error:
            rejected = error
        self._expect("reject", int(rejected is not None), step.get("reject", 0), str(rejected))
        calls = [list(call) for call in self.stream.calls]
        if "calls" in step:
            self._expect("calls", calls, step["calls"])
        elif "ret" in step:
            self._expect("ret", calls[-1][-1], step["ret"])
        self._compare_state(step)
        return self.compared

    def _compare_state(self, step: dict[str, Any]) -> None:
        for want in step["st"]:
            got = folio_state(self.stream.folios[want["f"]], self.acct.driver)
            self._compare(f"folio {want['f']} ", got, {k: v for k, v in want.items() if k != "f"})
        stats = self.acct.driver.stats
        got = {"nr": stats.nr, "mthp": list(stats.mthp()), "ml": [stats.mlock, stats.munlock]}
        self._compare("", got, {k: step[k] for k in ("nr", "mthp", "ml") if k in step})

    def _compare(self, where: str, got: dict[str, Any], want: dict[str, Any]) -> None:
        for field, value in want.items():
            self._expect(where + field, got.get(field), value)

    def _expect(self, field: str, got: object, want: object, note: str = "") -> None:
        self.compared += 1
        if got != want:
            raise _Differs(field, f"{got} ({note})" if note != "None" and note else got, want)

    def _recorded_runs(self, f: int, m: int) -> list[Run] | None:
        """The recorded order of a page-cache folio's runs, if it takes exactly what m maps.

        Which VMA of the mm a mapping was made through is not part of the format, and it decides how the pages that
        several VMAs map are grouped into calls.
        """
        found: list[Run] = [
            (LEVEL_NAMES[call[-4]], call[-3], call[-2])
            for call in self.recorded
            if call[0] in ("rem", "dup") and call[1] == f and call[2] == m
        ]
        left = self.stream.mapped(f, m).copy()
        for level, first, n in found:
            if not left.has(level, first, n):
                return None
            left.change(level, first, n, -1)
        return None if left else found


def folio_state(folio: Folio, model: Model) -> dict[str, Any]:
    """The vectors' state object of a folio under one model."""
    counters = model.of(folio)
    state: dict[str, Any] = {
        "mc": model.mapcount(folio),
        "ms": int(model.maybe_mapped_shared(folio)),
        "avg": model.average_page_mapcount(folio),
        "ref": model.refcount(folio),
    }
    if folio.is_large:
        state |= {
            "id": list(counters.mm_id),
            "idmc": [count + 1 for count in counters.mm_id_mapcount],
            "sh": int(counters.shared),
            "pm": int(counters.partially_mapped),
        }
    if isinstance(model, EntireMapcountModel):
        state["ent"] = model.entire_mapcount(folio)
    if isinstance(model, TotalMappedPages):
        state |= {"traw": counters.total_mapped_pages, "tot": model.total_mapped_pages(folio)}
    if isinstance(model, Precise):
        state |= {"npm": counters.nr_pages_mapped, "pp": _precise_runs(model, folio)}
    if folio.is_anon:
        pages = 1 if folio.kind.is_hugetlb else folio.nr_pages
        state["ae"] = [[value, n] for _, n, value in folio.exclusive.runs(0, pages)]
    return state


def _precise_runs(model: Precise, folio: Folio) -> list[list[int]]:
    if not folio.is_large:
        return [[model.mapcount(folio), 1]]
    return [[model.page_mapcount(folio, first), n] for first, n, _ in model.pages(folio).runs()]

"""The text of a scenario: one setting or step a line, words between blanks, `#` starts a comment."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..arch.errors import InputError, PtwalkError

MAX_STEPS = 1000
"""Lines with a setting or step that a scenario may have."""
MAX_BYTES = 1 << 20
"""Size of a scenario that is still read."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_'.+-]*")


class ScenarioError(InputError):
    """A scenario that cannot be run: one sentence with file and line.

    >>> str(ScenarioError("no process of this name", file="a.scn", line=3, value="B"))
    "a.scn: line 3: no process of this name ('B')"
    """

    def __init__(self, problem: str, *, file: object, line: int, value: object = None) -> None:
        self.line = line
        super().__init__(problem, file=file, field=f"line {line}", value=value)


class RecountError(PtwalkError):
    """After a step, counters and page tables disagree: a defect of ptwalk, never of the scenario."""


@dataclass(frozen=True)
class Line:
    """A setting or step: its line number and its words."""

    number: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words, one blank between them."""
        return " ".join(self.words)


def read(path: str | Path) -> list[Line]:
    """The lines of a scenario file; ScenarioError or InputError where it is none."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"a scenario has at most {MAX_BYTES} bytes", file=path, value=len(raw))
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", file=path, offset=error.start) from error
    return parse(text, path)


def parse(text: str, file: object = "scenario") -> list[Line]:
    """The lines of a scenario given as text.

    >>> parse("# a story" + chr(10) + "fork A  B   # copy", "x")
    [Line(number=2, words=('fork', 'A', 'B'))]
    """
    lines = [Line(number, tuple(row.split("#")[0].split())) for number, row in enumerate(text.splitlines(), 1)]
    lines = [line for line in lines if line.words]
    if not lines:
        raise InputError("no step in the scenario", file=file)
    if len(lines) > MAX_STEPS:
        raise ScenarioError(f"a scenario has at most {MAX_STEPS} steps", file=file, line=lines[MAX_STEPS].number)
    return lines


class Words:
    """The operands of one line, taken from left to right; errors name file and line.

    >>> words = Words(Line(1, ("fault", "A", "0..3", "as", "F")), "x")
    >>> words.name("process"), words.pages(), words.option("as")
    ('A', (0, 4), 'F')
    """

    def __init__(self, line: Line, file: object) -> None:
        self.line, self.file = line, file
        self.verb = line.words[0]
        self.left = list(line.words[1:])

    def error(self, problem: str, value: object = None) -> ScenarioError:
        """The error that names this line."""
        return ScenarioError(f"{self.verb}: {problem}", file=self.file, line=self.line.number, value=value)

    def take(self, what: str) -> str:
        """The next word."""
        if not self.left:
            raise self.error(f"{what} is missing")
        return self.left.pop(0)

    def name(self, what: str) -> str:
        """The next word, which must be a name."""
        word = self.take(f"the {what}")
        if not _NAME.fullmatch(word):
            raise self.error(f"not a name for a {what}", word)
        return word

    def number(self, what: str) -> int:
        """The next word, which must be a decimal or 0x number."""
        return self._int(self.take(what), what)

    def _int(self, word: str, what: str) -> int:
        if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,18}", word.replace("_", "")):
            raise self.error(f"{what} is not a number", word)
        return int(word.replace("_", ""), 0) if word.startswith("0x") else int(word.replace("_", ""))

    def size(self) -> int:
        """The next word as bytes: a number with K, M or G."""
        word = self.take("the size")
        match = re.fullmatch(r"([0-9]{1,9})([KMG]?)", word)
        if match is None:
            raise self.error("not a size such as 64K, 4M or 1G", word)
        return int(match[1]) * _UNITS[match[2]]

    def choice(self, what: str, choices: tuple[str, ...]) -> str:
        """The next word, one of the choices."""
        word = self.take(what)
        if word not in choices:
            raise self.error(f"{what} is one of {', '.join(choices)}", word)
        return word

    def maybe(self, matches: Callable[[str], object]) -> str | None:
        """The next word if it matches."""
        return self.left.pop(0) if self.left and matches(self.left[0]) else None

    def pages(self) -> tuple[int, int] | None:
        """(first, end) of the next word `a..b` (both included) or `a`; None where no page is named."""
        word = self.maybe(lambda word: re.fullmatch(r"[0-9_]+(\.\.[0-9_]+)?", word))
        if word is None:
            return None
        first, _, last = word.partition("..")
        start = self._int(first, "the first page")
        end = self._int(last, "the last page") + 1 if last else start + 1
        if end <= start:
            raise self.error("the last page lies before the first", word)
        return start, end

    def option(self, keyword: str) -> str | None:
        """The word behind a keyword, wherever it stands."""
        if keyword not in self.left:
            return None
        at = self.left.index(keyword)
        if at + 1 == len(self.left):
            raise self.error(f"nothing follows {keyword!r}")
        value = self.left[at + 1]
        del self.left[at : at + 2]
        return value

    def flag(self, keyword: str) -> bool:
        """Whether a keyword stands somewhere."""
        if keyword in self.left:
            self.left.remove(keyword)
            return True
        return False

    def done(self) -> None:
        """Refuse words that nobody took."""
        if self.left:
            raise self.error("this word has no meaning here", self.left[0])

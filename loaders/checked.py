"""JSON from a file that is not trusted: every step down names the field, every surprise is an InputError."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..arch.errors import InputError

_HEX = re.compile(r"(?:0x)?([0-9a-f]{1,32})", re.ASCII | re.IGNORECASE)


def parse_hex(text: str, bits: int = 64) -> int | None:
    """The value of `0x1f` or `1f`, None where the text is no hexadecimal number of at most `bits` bits.

    >>> parse_hex("0x1F"), parse_hex("1f", 4), parse_hex("x")
    (31, None, None)
    """
    match = _HEX.fullmatch(text)
    value = int(match[1], 16) if match else None
    return None if value is None or value >> bits else value


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside a JSON file, with the file and the field's path for error messages.

    >>> Node.parse(b'{"pid": [1, "0x10"]}', "roots.json")["pid"].items()[1].hex()
    16
    >>> Node.parse(b'{"pid": "x"}', "roots.json")["pid"].integer()
    Traceback (most recent call last):
    ptwalk.arch.errors.InputError: roots.json: pid: not an integer ('x')
    """

    value: object
    file: str
    field: str = ""

    @classmethod
    def parse(cls, data: bytes, file: str) -> Node:
        """The root of a JSON text."""
        try:
            return cls(json.loads(data), file)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", file=file) from error

    def error(self, problem: str) -> InputError:
        shown = self.value if isinstance(self.value, str | int | float | bool | None) else type(self.value).__name__
        return InputError(problem, file=self.file, field=self.field or None, value=shown)

    def _child(self, value: object, step: str) -> Node:
        return Node(value, self.file, f"{self.field}{step}" if self.field or step[0] == "[" else step.lstrip("."))

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> Node:
        if not isinstance(self.value, dict):
            raise self.error("not an object")
        if key not in self.value:
            raise InputError("missing", file=self.file, field=f"{self.field}.{key}".lstrip("."))
        return self._child(self.value[key], f".{key}")

    def pairs(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of an object."""
        if not isinstance(self.value, dict):
            raise self.error("not an object")
        for key, value in self.value.items():
            yield key, self._child(value, f".{key}")

    def items(self) -> list[Node]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.error("not a list")
        return [self._child(value, f"[{i}]") for i, value in enumerate(self.value)]

    def integer(self) -> int:
        """A non-negative integer below 2**64."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value < 1 << 64:
            raise self.error("not an integer")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.error("not true or false")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.error("not a text")
        return self.value

    def hex(self) -> int:
        """A hexadecimal text of at most 64 bits."""
        value = parse_hex(self.text())
        if value is None:
            raise self.error("not a hexadecimal number")
        return value

"""One picture, three ways to show it: plain in `repr`, in colour through rich, as HTML in notebooks."""

from __future__ import annotations

import pprint
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

Part = str | tuple[str, str]
Line = Sequence[Part]
"""A line: plain text, or text with a rich style."""

_MID_TONES = ((0, 0, 0), (200, 60, 60), (60, 140, 60), (170, 120, 0), (70, 110, 210), (170, 80, 170), (0, 140, 150))


class Shown:
    """Something that draws itself as lines of text with styles.

    >>> class Answer(Shown):
    ...     def lines(self):
    ...         yield ["the answer is ", ("42", "bold")]
    >>> Answer()
    the answer is 42
    >>> Answer()._repr_html_().count("<span")
    1
    """

    def lines(self) -> Iterable[Line]:
        """The picture, a line a time."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join("".join(part if isinstance(part, str) else part[0] for part in x) for x in self.lines())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        for parts in self.lines():
            yield Text.assemble(*parts)

    def _repr_html_(self) -> str:
        """For notebooks: colours that can be read on a light and on a dark page."""
        from rich.console import Console
        from rich.terminal_theme import TerminalTheme

        theme = TerminalTheme((255, 255, 255), (0, 0, 0), [*_MID_TONES, (128, 128, 128)])
        console = Console(record=True, file=StringIO(), color_system="standard", force_terminal=True)
        console.print(self, soft_wrap=True, highlight=False)
        return console.export_html(theme=theme, inline_styles=True, code_format="<pre>{code}</pre>")


class _HexPrinter(pprint.PrettyPrinter):
    """pprint with integers in hexadecimal, inside containers too."""

    def format(
        self, object: Any, context: dict[int, int], maxlevels: int, level: int
    ) -> tuple[str, bool, bool]:  # called by pprint for everything that is not a container
        if type(object) is int:
            return f"{object:#x}", True, False
        return super().format(object, context, maxlevels, level)


def hex_text(x: object) -> str:
    """`repr` with integers in hexadecimal.

    >>> hex_text({"va": [4096, True, -16]})
    "{'va': [0x1000, True, -0x10]}"
    """
    return _HexPrinter(width=100, sort_dicts=False).pformat(x)

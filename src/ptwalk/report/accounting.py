"""Folios as pictures and counters as tables: who maps which part at which level, and what each model counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from ..rmap.levels import Level

Part = tuple[Level, int, int]
"""Entries of one level that map neighbouring pages: level, first page, pages."""
Figure = int | str | bool | None

_ROW = 22
_WIDTH = 1000


def folio_picture(nr_pages: int, mapped: Mapping[str, Sequence[Part]]) -> str:
    """A bar for the folio's pages, below it a row for each process with a box for each part that it maps.

    What a process maps a second time stands in a further row.
    """
    rows = [(name, lane) for name, parts in mapped.items() for lane in _lanes(parts)]
    if not rows:
        return '<p class="dim">nobody maps it</p>'
    out = ['<div class="folio">', f'<div class="who dim">page</div>{_ruler(nr_pages)}']
    for name, lane in rows:
        out.append(f'<div class="who">{escape(name)}</div>{_lane(nr_pages, lane)}')
    return "".join([*out, "</div>"])


def _lanes(parts: Sequence[Part]) -> list[list[Part]]:
    lanes: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: part[1]):
        lane = next((lane for lane in lanes if lane[-1][1] + lane[-1][2] <= part[1]), None)
        if lane is None:
            lanes.append([part])
        else:
            lane.append(part)
    return lanes


def _svg(content: str, label: str) -> str:
    return (
        f'<svg class="lane" viewBox="0 0 {_WIDTH} {_ROW}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{content}</svg>'
    )


def _ruler(nr_pages: int) -> str:
    marks = "".join(f'<span style="left:{100 * k // 4}%">{nr_pages * k // 4}</span>' for k in range(4))
    return f'<div class="ruler">{marks if nr_pages >= 4 else "<span>0</span>"}</div>'


def _lane(nr_pages: int, lane: Sequence[Part]) -> str:
    boxes, said = [f'<rect class="hole" x="0" y="3" width="{_WIDTH}" height="{_ROW - 6}"/>'], []
    for level, first, n in lane:
        x, width = _WIDTH * first / nr_pages, max(_WIDTH * n / nr_pages, 1.5)
        text = f"{level.name}s map pages {first} to {first + n - 1}" if n > 1 else f"a {level.name} maps page {first}"
        said.append(text)
        boxes.append(
            f'<rect class="l{int(level)}" x="{x:.2f}" y="3" width="{width:.2f}" height="{_ROW - 6}">'
            f"<title>{text}</title></rect>"
        )
    return _svg("".join(boxes), "; ".join(said[:20]) + (f"; {len(said) - 20} more parts" if len(said) > 20 else ""))


LEVELS = (
    '<p class="legend"><span class="l0">&#9632;</span> PTE <span class="l1">&#9632;</span> PMD '
    '<span class="l2">&#9632;</span> PUD <span class="dim">what differs between the models is marked</span></p>'
)


def figures_table(
    columns: Mapping[str, Mapping[str, Figure]],
    models: Sequence[str],
    units: Mapping[str, str] | None = None,
) -> str:
    """A row for each figure, a column for each model; rows in which the models differ are marked."""
    out = ['<div class="scroll"><table class="figures"><tr><th></th>']
    out += [f'<th scope="col">{escape(model)}</th>' for model in models]
    out.append("</tr>")
    for name in dict.fromkeys(name for model in models for name in columns.get(model, {})):
        values = [columns[model].get(name) if model in columns else "refused" for model in models]
        known = {str(value) for value in values if value not in (None, "refused")}
        mark = ' class="differs"' if len(known) > 1 else ""
        cells = "".join(f"<td>{escape(_word(value))}</td>" for value in values)
        unit = f" {units[name]}" if units and units.get(name) else ""
        out.append(f'<tr{mark}><th scope="row">{escape(name + unit)}</th>{cells}</tr>')
    out.append("</table></div>")
    return "".join(out)


def _word(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def interesting(columns: Mapping[str, Mapping[str, Figure]], always: Sequence[str]) -> dict[str, dict[str, Figure]]:
    """The figures that are not 0 in every model, and those that are always wanted."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    kept = [name for name in names if name in always or any(column.get(name) for column in columns.values())]
    return {model: {name: column[name] for name in kept if name in column} for model, column in columns.items()}


def joined(parts: Iterator[Part] | Sequence[Part]) -> list[Part]:
    """Parts of one level that follow each other, as one.

    >>> joined([(Level.PTE, 0, 1), (Level.PTE, 1, 1), (Level.PTE, 4, 1)])
    [(<Level.PTE: 0>, 0, 2), (<Level.PTE: 0>, 4, 1)]
    """
    found: list[Part] = []
    for level, first, n in parts:
        if found and found[-1][0] == level and found[-1][1] + found[-1][2] == first:
            found[-1] = level, found[-1][1], found[-1][2] + n
        else:
            found.append((level, first, n))
    return found

"""Integer fields for construct declarations, under construct's names; construct's own hide their type from checkers."""

from __future__ import annotations

from construct import FormatField

Int32ul = FormatField("<", "L")
Int32sl = FormatField("<", "l")
Int64ul = FormatField("<", "Q")
Int64sl = FormatField("<", "q")
Int64sb = FormatField(">", "q")

"""A self-contained HTML page about a machine: address spaces that open down to pages, walks bit by bit, lint."""

from .page import Wanted, page

__all__ = ["Wanted", "page"]

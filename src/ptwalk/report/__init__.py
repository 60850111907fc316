"""A self-contained HTML page about a machine: address spaces that open down to pages, walks bit by bit, lint."""

from .page import page
from .wanted import Wanted

__all__ = ["Wanted", "page"]

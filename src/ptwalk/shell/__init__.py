"""The stepping shell: a session without a user interface, and the consoles around it."""

from __future__ import annotations

from .script import EXAMPLE
from .session import Session

__all__ = ["EXAMPLE", "Session"]

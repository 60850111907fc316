"""The stepping shell: a session without a user interface, and the consoles around it."""

from __future__ import annotations

from pathlib import Path

from .session import Session

EXAMPLE = Path(__file__).parent / "example.toml"
"""The machine that `ptwalk repl` shows without a file."""

__all__ = ["EXAMPLE", "Session"]

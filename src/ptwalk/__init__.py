"""ptwalk: a bit-true emulator of the x86-64 and arm64 page-table walkers, with Linux's rmap accounting."""

from __future__ import annotations

__version__ = "0.1.0"

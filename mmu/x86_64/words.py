"""Memory as one walk sees it: what it read stays as it was read, what it wrote shows, and nothing is stored yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..memory import Memory

Update = tuple[int, int, int]


@dataclass(slots=True)
class Words:
    """The words one walk touched, of 8 bytes each, and the entries it changed, in order, as (pa, size, old, new).

    >>> from ..memory import WordMemory
    >>> ram = Words(WordMemory({0x1000: 0x2003}))
    >>> ram.change(0x1000, 8, 0x20)
    >>> hex(ram.read(0x1000, 8)), ram.commit(), hex(ram.memory.read_uint(0x1000))
    ('0x2023', True, '0x2023')
    """

    memory: Memory
    words: dict[int, int] = field(default_factory=dict)
    changes: list[tuple[int, int, int, int]] = field(default_factory=list)

    def _word(self, pa: int) -> int:
        word = self.words.get(pa)
        if word is None:
            word = self.words[pa] = self.memory.read_uint(pa, 8)
        return word

    def read(self, pa: int, size: int) -> int:
        """The entry of `size` (4 or 8) bytes at `pa`; BusError where no memory backs its word."""
        if size == 8:
            return self._word(pa)
        return self._word(pa & ~7) >> (pa & 4) * 8 & 0xFFFF_FFFF

    def change(self, pa: int, size: int, bits: int) -> None:
        """Set `bits` of an entry that was read."""
        old = self.read(pa, size)
        if old | bits != old:
            self.changes.append((pa, size, old, old | bits))
            self.words[pa & ~7] |= bits << (pa & 7) * 8

    def updates(self) -> tuple[Update, ...]:
        """The changes as (pa, old, new)."""
        return tuple((pa, old, new) for pa, _, old, new in self.changes)

    def commit(self) -> bool:
        """Store the changes by compare-and-exchange, in order; False where an entry is not as it was read."""
        for pa, size, old, new in self.changes:
            if self.memory.read_uint(pa, size) != old:
                return False
            self.memory.write_uint(pa, new, size)
        return True

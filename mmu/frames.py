"""Frames for page tables: an allocator over a range of RAM."""

from __future__ import annotations

import heapq

from ..arch.errors import InputError


class FrameAllocator:
    """Hands out frames of `page_size` bytes from physical addresses `start` to `end`, the lowest free one first.

    >>> frames = FrameAllocator(0x10000, 0x13000)
    >>> a, b = frames.alloc(), frames.alloc()
    >>> frames.free(a)
    >>> hex(frames.alloc()), frames.free_frames
    ('0x10000', 1)
    """

    def __init__(self, start: int, end: int, page_size: int = 4096) -> None:
        if page_size <= 0 or page_size & page_size - 1 or start % page_size:
            raise InputError("the range does not start at a frame", field="start", value=start)
        self.page_size, self.start, self.end = page_size, start, end
        self._next = start
        self._returned: list[int] = []
        self._used: set[int] = set()

    @property
    def free_frames(self) -> int:
        """How many frames are left."""
        return (self.end - self._next) // self.page_size + len(self._returned)

    def alloc(self) -> int:
        """The address of a frame, whatever it holds; InputError when none is left."""
        if self._returned:
            pa = heapq.heappop(self._returned)
        elif self._next + self.page_size <= self.end:
            pa, self._next = self._next, self._next + self.page_size
        else:
            text = f"no frame is left for a page table between {self.start:#x} and {self.end:#x}"
            raise InputError(text, field="tables")
        self._used.add(pa)
        return pa

    def claim(self, pa: int) -> None:
        """Take back the very frame `pa` that was freed; InputError where it is not free."""
        if pa not in self._returned:
            raise InputError("this frame is not free", field="pa", value=pa)
        self._returned.remove(pa)
        heapq.heapify(self._returned)
        self._used.add(pa)

    def free(self, pa: int) -> None:
        """Return a frame; InputError where it was not handed out."""
        if pa not in self._used:
            raise InputError("this frame was not handed out", field="pa", value=pa)
        self._used.remove(pa)
        heapq.heappush(self._returned, pa)

    def __contains__(self, pa: int) -> bool:
        """Whether `pa` is a frame that was handed out and not returned."""
        return pa in self._used

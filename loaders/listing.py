"""Listings: what a kernel said of an address space, without page tables behind it (ptdump text, /proc/PID)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.walk import Rights


@dataclass(frozen=True, slots=True)
class Listed:
    """One range that a listing says is mapped: `size` bytes from `va` on.

    `pa` is the first byte's physical address where the listing tells one; it runs on through the range. `level` is
    Linux's name of the entries (PTE, PMD ...) or empty, `rights` what the listing says of them (upper levels may take
    some away), `text` the rest of what it says, `section` the heading it stands under.
    """

    va: int
    size: int
    rights: Rights
    level: str = ""
    text: str = ""
    section: str = ""
    pa: int | None = None

    @property
    def end(self) -> int:
        """The address behind the range."""
        return self.va + self.size


@dataclass(frozen=True, slots=True)
class Listing:
    """All ranges in the order of addresses, and what people should know of them."""

    source: str
    format: str
    rows: tuple[Listed, ...]
    notes: tuple[str, ...] = ()

    def at(self, va: int) -> Listed | None:
        """The range that holds an address."""
        return next((row for row in self.rows if row.va <= va < row.end), None)


def load_listing(path: str | Path) -> Listing | None:
    """The listing in a file or folder; None where it is none, InputError where it is a damaged one.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "current_user"
    >>> _ = path.write_text("0x0000000000400000-0x0000000000600000           2M USR ro         PSE         x  pmd\\n")
    >>> listing = load_listing(path)
    >>> listing.rows[0].level, listing.rows[0].rights.text()
    ('PMD', 'kernel ---, user r-x')
    """
    path = Path(path)
    if path.is_dir():
        from .proc_pid import is_process_folder, read_process_folder

        return read_process_folder(path) if is_process_folder(path) else None
    from .ptdump import is_ptdump, read_ptdump

    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    return read_ptdump(path) if is_ptdump(head) else None

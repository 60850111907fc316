"""Every error of ptwalk descends from one root; each carries its operands and reads as one sentence."""

from __future__ import annotations


class PtwalkError(Exception):
    """The root of every error that ptwalk raises on purpose."""


class InputError(PtwalkError):
    """Input that cannot be used: a file, a register value, a layout description. Command-line exit code 2.

    >>> str(InputError("offset beyond the end of the file", file="a.elf", offset=0x40, field="p_offset", value=0x999))
    'a.elf: offset 0x40: p_offset: offset beyond the end of the file (0x999)'
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        offset: int | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        self.problem, self.file, self.offset, self.field, self.value = problem, file, offset, field, value
        where = [str(file)] if file is not None else []
        where += [f"offset {offset:#x}"] if offset is not None else []
        where += [field] if field is not None else []
        tail = ""
        if value is not None:
            tail = f" ({value:#x})" if isinstance(value, int) and not isinstance(value, bool) else f" ({value!r})"
        super().__init__(": ".join([*where, problem]) + tail)


class RegisterError(InputError):
    """A register combination that the architecture leaves undefined or that no walk can start from."""


class BusError(PtwalkError):
    """A physical address that no memory backs.

    >>> str(BusError(0x1000, 8))
    'no memory at physical address 0x0000000000001000 (8 bytes)'
    """

    def __init__(self, pa: int, size: int = 8) -> None:
        self.pa, self.size = pa, size
        super().__init__(f"no memory at physical address {pa:#018x} ({size} bytes)")

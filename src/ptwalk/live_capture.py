"""Writes a capture of the running Linux system: one file, nothing but the standard library, to be run as root.

    python3 live_capture.py capture.tar.xz --pid 42 --pid 43

Page tables are read through /proc/kcore; where a process keeps its root follows from the kernel's own type
information (/sys/kernel/btf/vmlinux) and symbols (/proc/kallsyms). Processes are stopped meanwhile. This takes
CONFIG_PROC_KCORE, CONFIG_DEBUG_INFO_BTF, CONFIG_KALLSYMS_ALL and a kernel that is not locked down. Control registers
cannot be read from user space: those written are what Linux must have set, and meta.json says so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

_BTF_MAGIC = 0xEB9F
_STRUCT, _UNION = 4, 5
_TEXTS = ("maps", "smaps", "smaps_rollup", "numa_maps", "status", "statm", "stat")
_SYSTEM_TEXTS = ("meminfo", "vmstat", "zoneinfo", "iomem", "cpuinfo", "swaps", "version", "cmdline")
_MAX_TASKS, _MAX_PAGES = 1 << 20, 1 << 18


class CaptureError(Exception):
    """The running system does not let itself be captured."""


class Btf:
    """Offsets of struct members, from the kernel's BTF (Documentation/bpf/btf.rst)."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, length, type_at, type_size, string_at, _ = struct.unpack_from("<HBBIIIII", data)
        if magic != _BTF_MAGIC:
            raise CaptureError("/sys/kernel/btf/vmlinux is no little-endian BTF")
        self._data, self._strings = data, length + string_at
        self._structs: dict[str, int] = {}
        self._at: list[int] = [0]
        at, end = length + type_at, length + type_at + type_size
        sizes = {1: 4, 3: 12, 14: 4, 17: 4}  # INT, ARRAY, VAR, DECL_TAG: bytes behind the common part
        rows = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64
        while at < end:
            name, info, _ = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            if kind == _STRUCT and name:
                self._structs.setdefault(self._name(name), len(self._at))
            self._at.append(at)
            at += 12 + sizes.get(kind, 0) + rows.get(kind, 0) * count

    def _name(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def offset(self, struct_name: str, member: str) -> int:
        """The offset of a member in bytes, looked for in unnamed structs and unions as well."""
        if struct_name in self._structs:
            found = self._find(self._structs[struct_name], member)
            if found is not None:
                return found // 8
        raise CaptureError(f"the kernel's BTF knows no {struct_name}.{member}")

    def _find(self, number: int, member: str) -> int | None:
        _, info, _ = struct.unpack_from("<III", self._data, self._at[number])
        if info >> 24 & 31 not in (_STRUCT, _UNION):
            return None
        for i in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("<III", self._data, self._at[number] + 12 + 12 * i)
            offset &= 0xFFFFFF if info >> 31 else 0xFFFFFFFF
            if name and self._name(name) == member:
                return int(offset)
            if not name and (inner := self._find(kind, member)) is not None:
                return int(offset + inner)
        return None


class Kcore:
    """The kernel's memory by virtual and by physical address."""

    def __init__(self) -> None:
        self._file = os.open("/proc/kcore", os.O_RDONLY)
        head = os.pread(self._file, 64, 0)
        phoff, phnum = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        headers = [struct.unpack("<IIQQQQQQ", os.pread(self._file, 56, phoff + 56 * i)) for i in range(phnum)]
        # the direct map lies lowest; the kernel image's own mapping has holes where its memory was freed
        self.segments = sorted((v, p, size, at) for kind, _, at, v, p, size, _, _ in headers if kind == 1)
        notes = next(((at, size) for kind, _, at, _, _, size, _, _ in headers if kind == 4), (0, 0))
        text = os.pread(self._file, notes[1], notes[0])
        self.vmcoreinfo = dict(re.findall(rb"^([A-Za-z()_0-9]+)=(\S+)$", text, re.MULTILINE))

    def physical(self, va: int) -> int:
        """The physical address of a kernel address of the direct map."""
        for start, pa, size, _ in self.segments:
            if start <= va < start + size and pa != (1 << 64) - 1:
                return int(pa + va - start)
        raise CaptureError(f"/proc/kcore knows no physical address of {va:#018x}")

    def read(self, address: int, size: int, *, physical: bool = False) -> bytes:
        for start, pa, length, at in self.segments:
            base = pa if physical else start
            if base <= address and address + size <= base + length and not (physical and pa == (1 << 64) - 1):
                data = os.pread(self._file, size, at + address - base)
                if len(data) == size:
                    return data
        raise CaptureError(f"/proc/kcore does not give {size} bytes at {address:#018x}")

    def word(self, va: int) -> int:
        return int(struct.unpack("<Q", self.read(va, 8))[0])


class Paging:
    """The shape of the page tables: page shift, levels, and which entries are tables."""

    def __init__(self, kcore: Kcore) -> None:
        self.page_shift = os.sysconf("SC_PAGESIZE").bit_length() - 1
        self.machine = os.uname().machine
        if self.machine == "x86_64":
            self.va_bits = 57 if kcore.vmcoreinfo.get(b"NUMBER(pgtable_l5_enabled)") == b"1" else 48
            self.levels, self.mask = (5 if self.va_bits == 57 else 4), 0xF_FFFF_FFFF_F000
        elif self.machine == "aarch64":
            self.va_bits = int(kcore.vmcoreinfo.get(b"NUMBER(VA_BITS)", b"48"))
            if self.va_bits > 48:
                raise CaptureError("52-bit addresses of arm64 are not captured")
            self.levels = -(-(self.va_bits - self.page_shift) // (self.page_shift - 3))
            self.mask = (1 << 48) - (1 << self.page_shift)
        else:
            raise CaptureError(f"neither x86_64 nor aarch64, but {self.machine}")

    def is_table(self, entry: int) -> bool:
        """Whether an entry above the last level points at a table."""
        return bool(entry & 1) and (not entry & 0x80 if self.machine == "x86_64" else bool(entry & 2))

    def collect(self, kcore: Kcore, root: int, pages: dict[int, bytes]) -> None:
        """Read every table reachable from `root` into `pages` by physical address."""
        size = 1 << self.page_shift
        todo = [(root & ~(size - 1), self.levels)]
        while todo:
            pa, level = todo.pop()
            if pa not in pages:
                if len(pages) == _MAX_PAGES:
                    raise CaptureError(f"more than {_MAX_PAGES} page tables")
                pages[pa] = kcore.read(pa, size, physical=True)
                if level > 1:
                    entries = struct.unpack(f"<{size // 8}Q", pages[pa])
                    todo += [(entry & self.mask, level - 1) for entry in entries if self.is_table(entry)]


def symbol(name: str) -> int:
    """A kernel symbol's address from /proc/kallsyms."""
    with Path("/proc/kallsyms").open() as file:
        for line in file:
            address, _, found = line.split()[:3]
            if found == name and int(address, 16):
                return int(address, 16)
    raise CaptureError(f"/proc/kallsyms has no address of {name} (root, and kernel.kptr_restrict below 2, are needed)")


def roots(kcore: Kcore, btf: Btf, wanted: set[int]) -> dict[int, int]:
    """The physical address of the root table of each wanted process."""
    tasks, pid_at = btf.offset("task_struct", "tasks"), btf.offset("task_struct", "tgid")
    mm_at, pgd_at = btf.offset("task_struct", "mm"), btf.offset("mm_struct", "pgd")
    first = symbol("init_task")
    found: dict[int, int] = {}
    node = kcore.word(first + tasks)
    for _ in range(_MAX_TASKS):
        task = node - tasks
        if task == first:
            break
        (pid,) = struct.unpack("<i", kcore.read(task + pid_at, 4))
        mm = kcore.word(task + mm_at)
        if pid in wanted and mm:
            found[pid] = kcore.physical(kcore.word(mm + pgd_at))
        node = kcore.word(node)
    return found


def pagemap(pid: int, page_shift: int) -> tuple[bytes, bytes]:
    """The index and the words of /proc/PID/pagemap for every area of /proc/PID/maps."""
    index: list[list[object]] = []
    words = bytearray()
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(x, 16) for x in line.split(" ")[0].split("-"))
            if end > 1 << 63:  # the vsyscall page, which pagemap does not reach
                continue
            os.lseek(file.fileno(), start >> page_shift << 3, os.SEEK_SET)
            data = os.read(file.fileno(), (end - start) >> page_shift << 3)
            end = start + (len(data) // 8 << page_shift)
            index.append([f"{start:x}", f"{end:x}", len(words) // 8, len(data) // 8])
            words += data
    return json.dumps(index).encode(), bytes(words)


def meta(paging: Paging) -> dict[str, object]:
    """meta.json: what the tables look like, and the registers as Linux must have set them."""
    x86 = paging.machine == "x86_64"
    return {
        "arch": "x86" if x86 else "arm64",
        "page_shift": paging.page_shift,
        "levels": paging.levels,
        "lpa2": False,
        "uname": list(os.uname()),
        "registers": "not read: what Linux must have set",
        "cr": {"CR0": "80050033", "CR3": "0", "CR4": f"{0x3006A0 | (paging.levels == 5) << 12:x}", "EFER": "d01"},
    }


def arm64_registers(paging: Paging) -> dict[str, str]:
    """TCR_EL1 and MAIR_EL1 as Linux sets them for this page and address size."""
    tg0, tg1 = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[paging.page_shift]
    size = 64 - paging.va_bits
    tcr = size | size << 16 | tg0 << 14 | tg1 << 30 | 5 << 32 | 0x3500_3500
    return {"TCR_EL1": hex(tcr), "TTBR0_EL1": "0x0", "TTBR1_EL1": "0x0", "MAIR_EL1": "0x40044ffff"}


def frames(text: str, page_shift: int) -> tuple[int, int]:
    """The lowest and the highest frame of System RAM in /proc/iomem."""
    found = [
        (int(a, 16) >> page_shift, int(b, 16) + 1 >> page_shift)
        for a, b in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM", text, re.MULTILINE)
    ]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else (0, 0)


def capture(pids: list[int]) -> Iterator[tuple[str, bytes]]:
    """The capture's files, name by name."""
    kcore, btf = Kcore(), Btf(Path("/sys/kernel/btf/vmlinux").read_bytes())
    paging = Paging(kcore)
    pages: dict[int, bytes] = {}
    described: dict[str, object] = {}
    for pid, root in roots(kcore, btf, set(pids)).items():
        both = [root]
        if paging.machine == "x86_64" and re.search(r"\bpti\b", Path("/proc/cpuinfo").read_text()):
            both.append(root | 1 << 12)
        index, words = pagemap(pid, paging.page_shift)
        for one in both:
            paging.collect(kcore, one, pages)
        described[f"p{pid}"] = {"pid": pid, "pgd_phys": hex(root), "all_matching_roots": [hex(x) for x in both]}
        yield f"cp1/p{pid}.pagemap.json", index
        yield f"cp1/p{pid}.pagemap.bin", words
        for name in _TEXTS:
            if (path := Path(f"/proc/{pid}/{name}")).exists():
                yield f"cp1/proc/p{pid}/{name}", path.read_bytes()
    if not described:
        raise CaptureError("none of these processes has an address space")
    yield "cp1/ptpages.idx", struct.pack(f"<{len(pages)}Q", *sorted(pages))
    yield "cp1/ptpages.bin", b"".join(pages[pa] for pa in sorted(pages))
    yield "cp1/roots.json", json.dumps(described).encode()
    if paging.machine == "aarch64":
        yield "cp1/sysregs1.json", json.dumps([[arm64_registers(paging)]]).encode()
    yield from _system(paging)


def _system(paging: Paging) -> Iterator[tuple[str, bytes]]:
    texts = {name: Path(f"/proc/{name}").read_bytes() for name in _SYSTEM_TEXTS if Path(f"/proc/{name}").exists()}
    yield from ((f"cp1/proc/{name}", data) for name, data in texts.items())
    low, high = frames(texts["iomem"].decode(), paging.page_shift)
    for name in ("kpageflags", "kpagecount"):
        if high > low and Path(f"/proc/{name}").exists():
            with Path(f"/proc/{name}").open("rb") as file:
                file.seek(low * 8)
                yield f"cp1/{name}.{low:x}.bin", file.read((high - low) * 8)
    yield "meta.json", json.dumps(meta(paging)).encode()


def main(arguments: list[str] | None = None) -> int:
    """Write the capture; exit code 2 where the system does not let itself be captured."""
    parser = argparse.ArgumentParser(description="Capture page tables and /proc of running processes for ptwalk.")
    parser.add_argument("output", help="the .tar.xz to write")
    parser.add_argument("--pid", type=int, action="append", required=True, help="a process; may be repeated")
    given = parser.parse_args(arguments)
    stopped = [pid for pid in given.pid if pid not in (1, os.getpid(), os.getppid())]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        files = list(capture(given.pid))
    except (CaptureError, OSError, struct.error) as error:
        print(f"live_capture: {error}", file=sys.stderr)
        return 2
    finally:
        for pid in stopped:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)
    with tarfile.open(given.output, "w:xz") as tar:
        for name, data in files:
            member = tarfile.TarInfo(f"capture/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    print(f"{given.output}: {len(files)} files", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writers of dump files for tests: what makedumpfile, LiME and AVML write, from the published structures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

from ptwalk.loaders.kdump import FLAT_SIGNATURE, HEADER, PAGE_DESC, SIGNATURE, SUB_HEADER

PAGE = 4096


def diskdump(
    pages: Mapping[int, bytes], *, method: int = 1, pack: Callable[[bytes], bytes] = zlib.compress, info: bytes = b""
) -> bytes:
    """A compressed dump of the given page frames; a page that does not shrink is stored as it is."""
    max_mapnr = max(pages) + 1
    blocks = -(-max_mapnr // 8 // PAGE)
    header = HEADER.build(
        {
            "signature": SIGNATURE, "header_version": 6, "utsname": _utsname(), "timestamp": [0, 0], "status": 0,
            "block_size": PAGE, "sub_hdr_size": 1 + len(info) // PAGE, "bitmap_blocks": 2 * blocks,
            "max_mapnr": max_mapnr, "total_ram_blocks": 0, "device_blocks": 0, "written_blocks": 0, "current_cpu": 0,
            "nr_cpus": 1,
        }
    )  # fmt: skip
    numbers = dict.fromkeys((sub.name for sub in SUB_HEADER.subcons), 0)
    numbers |= {
        "max_mapnr_64": max_mapnr,
        "offset_vmcoreinfo": PAGE + SUB_HEADER.sizeof(),
        "size_vmcoreinfo": len(info),
    }
    sub = (SUB_HEADER.build(numbers) + info).ljust((1 + len(info) // PAGE) * PAGE, b"\0")
    bitmap = bytearray(blocks * PAGE)
    for pfn in pages:
        bitmap[pfn // 8] |= 1 << pfn % 8
    table_at = PAGE + len(sub) + 2 * len(bitmap)
    at = table_at + len(pages) * PAGE_DESC.sizeof()
    table, bodies = bytearray(), bytearray()
    for pfn in sorted(pages):
        small = pack(pages[pfn])
        body, flags = (small, method) if len(small) < PAGE else (pages[pfn], 0)
        table += PAGE_DESC.build({"offset": at + len(bodies), "size": len(body), "flags": flags, "page_flags": 0})
        bodies += body
    return header.ljust(PAGE, b"\0") + sub + bytes(bitmap) * 2 + bytes(table) + bytes(bodies)


def _utsname() -> bytes:
    words = ("Linux", "test", "6.1.0-test", "#1", "x86_64", "none")
    return b"".join(word.encode().ljust(65, b"\0") for word in words)


def flattened(plain: bytes, chunk: int = 5000) -> bytes:
    """The flattened form of a dump: records out of order, as a pipe to another machine carries them."""
    records = [(i, plain[i : i + chunk]) for i in range(0, len(plain), chunk)]
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in reversed(records))
    return (FLAT_SIGNATURE + struct.pack(">qq", 1, 1)).ljust(PAGE, b"\0") + body + struct.pack(">qq", -1, -1)


def lime(ranges: Mapping[int, bytes]) -> bytes:
    """A LiME dump of ranges by physical address."""
    parts = [struct.pack("<4sIQQQ", b"EMiL", 1, at, at + len(data) - 1, 0) + data for at, data in ranges.items()]
    return b"".join(parts)


def avml(ranges: Mapping[int, bytes], frames: Callable[[bytes], bytes]) -> bytes:
    """An AVML version 2 dump; `frames` compresses to snappy's framing format."""
    out = b""
    for at, data in ranges.items():
        packed = frames(data)
        out += struct.pack("<4sIQQQ", b"AVML", 2, at, at + len(data) - 1, 0) + packed + struct.pack("<Q", len(packed))
    return out

"""Vector files: `.npz` archives of cases and expected results, read with every array checked for type, shape and range.

What x86 and arm64 files share stands here: the archive, per-case arrays, memory words in CSR form.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arch.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_CASES, MAX_BYTES = 1 << 20, 1 << 31


def read_arrays(path: Path | str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz; InputError where it is cut, too large, or holds anything but plain arrays."""
    import numpy

    try:
        with Path(path).open("rb") as stream:
            archive = numpy.load(stream, allow_pickle=False)
            if not isinstance(archive, numpy.lib.npyio.NpzFile):
                raise InputError("not an .npz archive", file=path)
            size = sum(entry.file_size for entry in archive.zip.infolist()) if archive.zip else 0
            if size > MAX_BYTES:
                raise InputError("the arrays are too large", file=path, value=size)
            with archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError) as error:
        raise InputError(f"not a readable vector file: {error}", file=path) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"not a readable vector file: {error}", file=path) from error


def read_names(path: Path | str) -> set[str]:
    """The names of the arrays of an .npz, without reading them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"not a readable vector file: {error}", file=path) from error


class VectorArrays:
    """The arrays of a vector file with the checks that both architectures need; `count` is the number of cases."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]], path: Path | str = "") -> None:
        self.arrays, self.path = dict(arrays), str(path)
        if "va" not in self.arrays or self.arrays["va"].ndim != 1:
            raise InputError("the array is missing", file=self.path, field="va")
        self.count = len(self.arrays["va"])
        if not 0 < self.count <= MAX_CASES:
            raise InputError("unusable number of cases", file=self.path, field="va", value=self.count)

    def __len__(self) -> int:
        return self.count

    def array(self, name: str, *shape: int) -> np.ndarray[Any, Any]:
        """An array of integers of exactly this shape."""
        if name not in self.arrays:
            raise InputError("the array is missing", file=self.path, field=name)
        array = self.arrays[name]
        if array.dtype.kind not in "iub" or array.shape != shape:
            text = f"expected integers of shape {shape}, found {array.dtype} {array.shape}"
            raise InputError(text, file=self.path, field=name)
        return array

    def bounded(self, name: str, low: int, high: int, *shape: int) -> None:
        """An array all of whose values lie in `low` to `high`."""
        array = self.array(name, *(shape or (self.count,)))
        if int(array.min()) < low or int(array.max()) > high:
            raise InputError(f"values outside {low} to {high}", file=self.path, field=name)

    def csr(self, name: str, *parts: str) -> None:
        """`name`_off and the arrays it cuts into cases."""
        offsets = self.array(f"{name}_off", self.count + 1)
        if int(offsets[0]) != 0 or (offsets[1:] < offsets[:-1]).any():
            raise InputError("offsets do not ascend from 0", file=self.path, field=f"{name}_off")
        for part in parts:
            self.array(f"{name}_{part}", int(offsets[-1]))

    def words(self, name: str, i: int) -> dict[int, int]:
        """The listed words of case `i`: `name` is `mem` or `upd`."""
        offsets = self.arrays[f"{name}_off"]
        a, b = int(offsets[i]), int(offsets[i + 1])
        pa, value = self.arrays[f"{name}_pa"], self.arrays[f"{name}_val"]
        return dict(zip(pa[a:b].tolist(), value[a:b].tolist(), strict=True))

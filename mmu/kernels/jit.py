"""How every kernel is compiled: one decorator, whose on-disk cache notices changed layouts and helpers.

numba keys a cached function on its own file and its closure only; a mask read from arch/ or a helper in another file
may change unseen. `kernel` therefore keeps the cache in a folder named after a digest of all the sources that a
kernel is made from.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba as _numba
from numba import config as _config
from numba import njit
from numba import types as _types
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload as _overload

from ...arch.errors import PtwalkError

_HERE = Path(__file__).resolve().parent
_ARCH = _HERE.parents[1] / "arch"
F = TypeVar("F", bound=Callable[..., Any])

config: Any = _config
types: Any = _types
carray: Any = vars(_numba)["carray"]
intrinsic: Callable[..., Callable[..., Any]] = _intrinsic

if sys.byteorder != "little":
    raise PtwalkError("the kernels read little-endian words in place and need a little-endian host")


@functools.cache
def fingerprint(folder: Path) -> str:
    """A digest of every source below arch/ and of every module in mmu/kernels/ and in `folder`."""
    digest = hashlib.blake2b(digest_size=10)
    for path in sorted({*_ARCH.rglob("*.py"), *_HERE.glob("*.py"), *folder.glob("*.py")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cache_folder(function: Callable[..., Any]) -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(config.CACHE_DIR) if config.CACHE_DIR else (Path(home) if home else Path.home() / ".cache") / "ptwalk"
    return base / fingerprint(Path(function.__code__.co_filename).resolve().parent)


def kernel(function: F) -> F:
    """Compile `function` on its first call for each combination of argument types; cached on disk.

    The cache lies under NUMBA_CACHE_DIR or, without it, in the user's cache folder; where neither can be written
    each process compiles anew.
    """
    try:
        folder = _cache_folder(function)
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):
        writable = False
    before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(folder) if writable else before
        compiled: Any = njit(cache=writable, error_model="numpy", nogil=True)(function)
    finally:
        config.CACHE_DIR = before
    return cast(F, compiled)


def helper(function: F) -> F:
    """Compile a helper that is always inlined into the kernels that call it."""
    compiled: Any = njit(forceinline=True, error_model="numpy")(function)
    return cast(F, compiled)


def outlined(function: F) -> F:
    """Compile a helper for the rare path, left to the compiler to inline or call."""
    compiled: Any = njit(error_model="numpy")(function)
    return cast(F, compiled)


def overload(stub: Callable[..., Any], *, inline: bool = True) -> Callable[[F], F]:
    """Register the compiled forms of `stub`, always inlined unless told otherwise."""
    options: Any = {"error_model": "numpy"} | ({"forceinline": True} if inline else {})
    return cast("Callable[[F], F]", _overload(stub, jit_options=options))


def per_object(function: F) -> F:
    """Remember results by the identity of the first argument and the values of the others; the last 64 are kept."""
    kept: OrderedDict[Any, Any] = OrderedDict()

    @functools.wraps(function)
    def remembered(thing: Any, *rest: Any) -> Any:
        key = (id(thing), *rest)  # the entry holds the object, so that its id stays its own
        if key not in kept:
            kept[key] = thing, function(thing, *rest)
            if len(kept) > 64:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key][1]

    return cast(F, remembered)

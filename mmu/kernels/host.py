"""The host's memory by address, for compiled code: words, 32-bit words, atomic bits and prefetches.

Addresses and words are uint64; LLVM's integers are what that is underneath.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numpy.typing import NDArray

from .jit import intrinsic, types
from .lanes import gather_words, lanes


def host_address(data: NDArray[Any]) -> int:
    """Where an array's bytes lie in the host's memory."""
    return int(data.__array_interface__["data"][0])


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def peek(typingctx: Any, address: Any) -> Any:
    """The word at a host address, at any alignment; for lanes, the word at each one's."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if address is lanes:
            return gather_words(builder, args[0])
        return builder.load(_pointer(builder, args[0]), align=1)

    return address(address), codegen


@intrinsic
def poke(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a word at a host address, at any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic
def word_pointer(typingctx: Any, address: Any) -> Any:
    """A host address as a pointer to words, for numba.carray."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint64)(types.uint64), codegen


@intrinsic
def peek32(typingctx: Any, address: Any) -> Any:
    """The 32-bit word at a host address, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.zext(builder.load(pointer, align=4), ir.IntType(64))

    return types.uint64(types.uint64), codegen


@intrinsic
def poke32(typingctx: Any, address: Any, value: Any) -> Any:
    """Store the low half of a uint64 at a host address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        builder.store(builder.trunc(args[1], ir.IntType(32)), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic
def atomic_or(typingctx: Any, address: Any, value: Any) -> Any:
    """OR into an aligned word at a host address, atomically; the old value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("or", _pointer(builder, args[0]), args[1], "monotonic")

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def atomic_and(typingctx: Any, address: Any, value: Any) -> Any:
    """AND into an aligned word at a host address, atomically; the old value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("and", _pointer(builder, args[0]), args[1], "monotonic")

    return types.uint64(types.uint64, types.uint64), codegen


def _prefetch(locality: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        builder.call(function, [pointer, i32(0), i32(locality), i32(1)])
        return context.get_dummy_value()

    return codegen


@intrinsic
def prefetch_host(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line of a host address, for reading; any address is allowed."""
    return types.void(types.uint64), _prefetch(3)


@intrinsic
def prefetch_once(typingctx: Any, address: Any) -> Any:
    """The same for a line that is read once, which the outer caches then need not keep."""
    return types.void(types.uint64), _prefetch(0)


@intrinsic
def unlikely(typingctx: Any, condition: Any) -> Any:
    """The condition, which the compiler is told to expect False."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i1 = ir.IntType(1)
        expect = builder.module.declare_intrinsic("llvm.expect.i1", fnty=ir.FunctionType(i1, [i1, i1]))
        return builder.call(expect, [args[0], i1(0)])

    return types.boolean(types.boolean), codegen

"""Eight 64-bit words at once: the type `Lanes` of compiled code, with the operators of words.

Kernels and helpers are written for words; given lanes, `+ - & | ^ ~ << >>` act on each of the eight, and comparisons
give a word whose bit i tells about lane i. A word beside lanes counts for every lane. The compiler turns lanes into
vector registers where the host has them and into single instructions where it has none.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import models, register_model

from .jit import intrinsic, overload, types

COUNT = 8
EVERY = (1 << COUNT) - 1  # the word of a comparison that holds in all lanes
_WORD, _MASK, _INDEX = ir.IntType(64), ir.IntType(COUNT), ir.IntType(32)
_VECTOR, _TRUTHS = ir.VectorType(_WORD, COUNT), ir.VectorType(ir.IntType(1), COUNT)
_POINTERS = ir.VectorType(ir.PointerType(), COUNT)


class _Lanes(types.Type):  # type: ignore[misc]  # numba has no type hints
    """numba's type of eight words."""


lanes: Any = _Lanes("Lanes")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _vector(builder: Any, value: Any) -> Any:
    """A word for every lane; lanes as they are."""
    if value.type == _VECTOR:
        return value
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _INDEX(0))
    every = ir.Constant(ir.VectorType(_INDEX, COUNT), [0] * COUNT)
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), every)


def _truths(builder: Any, mask: Any) -> Any:
    return builder.bitcast(builder.trunc(mask, _MASK), _TRUTHS)


def _mixed(*kinds: Any) -> bool:
    return lanes in kinds and all(kind in (lanes, types.uint64) for kind in kinds)


def _operator(function: Any, result: Any, build: Any) -> None:
    """Register an operator of two operands, of which one is lanes at least."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return build(builder, *(_vector(builder, arg) for arg in args))

        return result(a, b), codegen

    @overload(function)
    def typed(a: Any, b: Any) -> Any:
        def operated(a: Any, b: Any) -> Any:
            return apply(a, b)

        return operated if _mixed(a, b) else None


def _arithmetic(name: str) -> Any:
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _comparison(sign: str) -> Any:
    return lambda builder, a, b: builder.zext(builder.bitcast(builder.icmp_unsigned(sign, a, b), _MASK), _WORD)


for _function, _name in {
    operator.add: "add", operator.sub: "sub", operator.and_: "and_", operator.or_: "or_", operator.xor: "xor",
    operator.lshift: "shl", operator.rshift: "lshr",
}.items():  # fmt: skip
    _operator(_function, lanes, _arithmetic(_name))
for _function, _name in {operator.eq: "==", operator.ne: "!=", operator.lt: "<"}.items():
    _operator(_function, types.uint64, _comparison(_name))


@intrinsic
def _inverted(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.not_(args[0])

    return lanes(lanes), codegen


@overload(operator.invert)
def _invert(value: Any) -> Any:
    def inverted(value: Any) -> Any:
        return _inverted(value)

    return inverted if value is lanes else None


@intrinsic
def spread(typingctx: Any, word: Any) -> Any:
    """Lanes that all hold one word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _vector(builder, args[0])

    return lanes(types.uint64), codegen


@intrinsic
def upto(typingctx: Any) -> Any:
    """The numbers of the lanes, 0 to 7."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, list(range(COUNT)))

    return lanes(), codegen


@intrinsic
def pick(typingctx: Any, truth: Any, yes: Any, no: Any) -> Any:
    """`yes` where `truth` holds, else `no`: lanes where it is a mask, a word where it is a condition."""
    wide = truth == types.uint64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not wide:
            return builder.select(*args)
        return builder.select(_truths(builder, args[0]), _vector(builder, args[1]), _vector(builder, args[2]))

    return (lanes if wide else yes)(truth, yes, no), codegen


# Lanes and the host's memory.


def _intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(builder.module.declare_intrinsic(name, fnty=kind), args)


@intrinsic
def peek_lanes(typingctx: Any, address: Any) -> Any:
    """The eight words from a host address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _VECTOR.as_pointer()), align=8)

    return lanes(types.uint64), codegen


@intrinsic
def stream_lanes(typingctx: Any, address: Any, value: Any) -> Any:
    """Store eight words from a host address that is a multiple of 64, past the caches; see `streamed`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stored = builder.store(args[1], builder.inttoptr(args[0], _VECTOR.as_pointer()), align=64)
        stored.set_metadata("nontemporal", builder.module.add_metadata([_INDEX(1)]))
        return context.get_dummy_value()

    return types.void(types.uint64, lanes), codegen


@intrinsic
def streamed(typingctx: Any) -> Any:
    """Wait for what `stream_lanes` stored, before another thread may look for it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def poke_lanes(typingctx: Any, address: Any, value: Any) -> Any:
    """Store eight words from a host address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _VECTOR.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.uint64, lanes), codegen


def gather_words(builder: Any, address: Any) -> Any:
    """The instruction for the words at all lanes' host addresses."""
    every = ir.Constant(_TRUTHS, [1] * COUNT)
    return _gather(builder, address, every)


def _gather(builder: Any, address: Any, truths: Any) -> Any:
    where = builder.inttoptr(address, _POINTERS)
    rest = _INDEX(1), truths, ir.Constant(_VECTOR, None)
    return _intrinsic(builder, "llvm.masked.gather.v8i64.v8p0", _VECTOR, where, *rest)


@intrinsic
def gather(typingctx: Any, address: Any, mask: Any) -> Any:
    """The word at each lane's host address, at any alignment; 0 and no access where the mask's bit is clear."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _gather(builder, args[0], _truths(builder, args[1]))

    return lanes(lanes, types.uint64), codegen


@intrinsic
def scatter(typingctx: Any, address: Any, value: Any, mask: Any) -> Any:
    """Store each lane's word at its host address where the mask's bit is set; the last of equal addresses stays."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = builder.inttoptr(args[0], _POINTERS)
        rest = _INDEX(8), _truths(builder, args[2])
        _intrinsic(builder, "llvm.masked.scatter.v8i64.v8p0", ir.VoidType(), args[1], where, *rest)
        return context.get_dummy_value()

    return types.void(lanes, lanes, types.uint64), codegen


@intrinsic
def prefetch_lanes(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line of each lane's host address, for reading; any address is allowed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for lane in range(COUNT):
            where = builder.inttoptr(builder.extract_element(args[0], _INDEX(lane)), ir.PointerType())
            rest = (_INDEX(n) for n in (0, 3, 1))
            _intrinsic(builder, "llvm.prefetch.p0", ir.VoidType(), where, *rest)
        return context.get_dummy_value()

    return types.void(lanes), codegen


@intrinsic
def address_of(typingctx: Any, array: Any) -> Any:
    """The host address of an array's first word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _WORD)

    return types.uint64(array), codegen


@intrinsic
def first_lane(typingctx: Any, mask: Any) -> Any:
    """The number of the lowest bit that is set in a mask, which is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@intrinsic
def lanes_in(typingctx: Any, mask: Any) -> Any:
    """How many bits are set in a mask."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic(prefer_literal=True)
def scratch(typingctx: Any, rows: Any, words: Any) -> Any:
    """The host address of memory for `rows` times `words` words, both constants, until the function returns."""
    if not isinstance(words, types.IntegerLiteral):
        return None
    kind = ir.ArrayType(_WORD, rows.literal_value * words.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
        block.align = 8 * COUNT  # lanes that lie across lines come back late
        return builder.ptrtoint(block, _WORD)

    return types.uint64(rows, words), codegen

"""The reference walker: both stages, every regime, every descriptor size; the executable specification.

`full_translate` is AArch64_TranslateAddress of the shared pseudocode (Arm ARM J1.1): stage 1, then stage 2 where the
regime has one, then the granule protection check. It yields a step for each table entry and ends in a translation or
a fault that names rule, level, entry and bit.
"""

from __future__ import annotations

from ...arch.arm64.faults import FaultType
from ..memory import Memory
from ..walk import Fault, Outcome, Rights, Translation, Walk
from . import denials, gpt, permissions, stage1, stage2, syndrome
from .access import Arm64Access
from .context import Abort, Context, Detail, FaultRecord, Port, Steps
from .system import SystemState

_LETTERS = "rwx"


def make_context(system: SystemState, memory: Memory, va: int, access: Arm64Access, *, update: bool = False) -> Context:
    """A translation ready to run."""
    level = access.level
    regime = system.regime(level)
    return Context(system, Port(memory, commit=update), va, access, level, regime, system.security(level))


def run(ctx: Context) -> Steps[Detail]:
    """Run a translation to its end; the context's `detail` holds all that it found out."""
    detail = ctx.detail
    try:
        yield from _run(ctx, detail)
    except Abort as abort:
        detail.fault = abort.record
    detail.reads, detail.writes, detail.updates = ctx.port.reads, ctx.port.writes, ctx.port.updates
    return detail


def _run(ctx: Context, detail: Detail) -> Steps[None]:
    first = yield from stage1.translate(ctx)
    detail.ipa, detail.ipa_space, detail.s1_assured = first.pa, first.space, first.assured
    pa, space, attrs, second = first.pa, first.space, first.attrs, None
    if ctx.system.two_stages(ctx.regime) and not ctx.access.stage1_only:
        request = stage2.Request(first.pa, first.space, first.attrs, assured=first.assured)
        second = yield from stage2.translate(ctx, request)
        pa, space, attrs = second.pa, second.space, second.attrs
    if not ctx.is_cache_op() or ctx.system.choices.gpc_on_cache_ops:
        record = FaultRecord(FaultType.NONE, 0)
        yield from gpt.check(ctx, pa, space, record, on_walk=False)
    detail.pa, detail.pa_space, detail.attrs = pa, space, attrs
    detail.rights = int(_rights(ctx, first, second))


def _rights(ctx: Context, first: stage1.Output, second: stage2.Output | None) -> Rights:
    """Which of the six plain accesses succeed: EL1 (or the regime's own level) for the kernel, EL0 for the user."""
    params, leaf, rights = first.params, first.leaf, Rights(0)
    for right in Rights:
        user, letter = right >= Rights.UR, _LETTERS[(right.bit_length() - 1) % 3]
        if user and not ctx.regime.unprivileged:
            continue
        first_allows = params is None or leaf is None or denials.allows(ctx, params, leaf, right)
        if first_allows and _stage2_allows(ctx, first, second, letter, user):
            rights |= right
    return rights


def _stage2_allows(ctx: Context, first: stage1.Output, second: stage2.Output | None, right: str, user: bool) -> bool:
    if second is None or second.params is None:
        return True
    params, raw = second.params, second.raw
    if denials.assured_only(params, raw) and not first.assured:
        return False
    if right == "x" and params.security.name == "Realm" and second.space.name != "Realm":
        return False
    if right == "w" and denials.clean2(params, raw):
        return False
    return permissions.stage2(params, raw, el0=user).allows(right)


def full_translate(system: SystemState, memory: Memory, va: int, access: Arm64Access, *, update: bool = False) -> Walk:
    """Translate `va`; `update` writes access flags and dirty state back to memory."""
    ctx = make_context(system, memory, va, access, update=update)
    detail = yield from run(ctx)
    return outcome_of(ctx, detail)


def outcome_of(ctx: Context, detail: Detail) -> Outcome:
    """The outcome in the words of mmu.walk."""
    return _translation(ctx, detail) if detail.fault is None else _fault(ctx, detail, detail.fault)


def _translation(ctx: Context, detail: Detail) -> Translation:
    leaf, second = detail.s1_leaf, detail.s2_leaf
    shift = leaf.size_log2 if leaf else second.size_log2 if second else 12
    assert detail.attrs is not None
    found: dict[str, object] = {
        "memory type": detail.attrs.text(),
        "output space": detail.pa_space.name,
        "regime": ctx.regime.title,
    }
    if leaf:
        found |= {"nG": leaf.ng, "GP": leaf.guarded, "contiguous": leaf.contiguous_log2}
    if second:
        shift = min(shift, second.size_log2)
        found |= {"ipa": detail.ipa, "stage 2 level": second.level}
    if ctx.acctype == "AT":
        found["PAR_EL1"] = syndrome.par(ctx, detail)
    return Translation(
        va=ctx.va,
        pa=detail.pa,
        level=leaf.level if leaf else None,
        page_shift=shift,
        rights=Rights(detail.rights),
        entry_pa=leaf.entry_pa if leaf else None,
        entry=leaf.raw if leaf else None,
        updates=detail.updates,
        attributes=found,
    )


def _fault(ctx: Context, detail: Detail, record: FaultRecord) -> Fault:
    first, second = syndrome.iss(ctx, record)
    values = {"ISS": first, "ISS2": second, "FAR": ctx.va}
    if syndrome.hpfar_valid(ctx, record):
        values["HPFAR_EL2"] = syndrome.hpfar(ctx, record)
    if ctx.acctype == "AT":
        values["PAR_EL1"] = syndrome.par(ctx, detail)
    return Fault(
        va=ctx.va,
        name=record.fault.title,
        code=record.code,
        rule=record.rule,
        stage=2 if record.stage2 else 1,
        level=record.level,
        entry_pa=record.entry_pa,
        entry=record.entry,
        bit=record.bit,
        source=f"Arm ARM J1.1, AArch64_{record.rule}" if record.rule.isidentifier() else record.source,
        also=record.also,
        syndrome=values,
        updates=detail.updates,
    )

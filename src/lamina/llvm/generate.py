"""The LLVM text of a program: simplify, fuse, lower, plan, verify, write."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from lamina import config
from lamina.ir.program import Program
from lamina.llvm import choices, engine, fuse
from lamina.llvm.arrange import arrange
from lamina.llvm.control import write_out
from lamina.llvm.faults import Checked
from lamina.llvm.host import Target
from lamina.llvm.lower import Lowered, lower
from lamina.llvm.plan import Plan, plan
from lamina.llvm.step import step_text
from lamina.llvm.task import Task
from lamina.llvm.verify import verify
from lamina.llvm.words import Sizes
from lamina.llvm.work import operations
from lamina.transform.absorb import absorb
from lamina.transform.crop import crop
from lamina.transform.lookups import Rule
from lamina.transform.simplify import simplify
from lamina.transform.sparse import use_sparse
from lamina.transform.tables import use_tables
from lamina.transform.winners import use_winners


@dataclass(frozen=True)
class Generated:
    """The text of a step, the memory it needs, and its tasks as `step_text` numbers them."""

    text: str
    sizes: Sizes
    tasks: list[tuple[Task, int, int]]
    checked: Checked | None


def generate(
    program: Program, capacity: int, target: Target, *, profile: bool = False
) -> Generated:
    """The LLVM text of a program's step."""
    simple = simplify(program.with_roots(write_out(program.roots)))
    roots = use_sparse(simple.roots, choices.WINNER_CHANNELS, choices.SPARSE_POSITIONS)
    pay = choices.tables_pay, choices.distinct_pay, choices.LOOKED_UP_TAPS
    roots = use_tables(roots, Rule(capacity, *pay))
    roots = use_winners(absorb(arrange(roots)), choices.WINNER_CHANNELS)
    simple = simple.with_roots(crop(roots))
    work = operations(simple.roots, capacity)
    parts = choices.parts(capacity, work)
    lowered = lower(simple, capacity, parts)
    planned = plan(lowered, capacity, parts, apart=config.arena() == "apart")
    verify(planned)
    checked = config.check() == "bounds"
    step = step_text(simple, planned, lowered.inputs, target, profile=profile, checked=checked)
    _show(simple, lowered, planned, step.text, target)
    scratch = -(-max(step.scratch_bytes, 1) // 128) * 128
    sizes = Sizes(step.shared_bytes, planned.private_bytes, scratch, work)
    names = _names([task for task, _, _ in step.tasks]) if checked else None
    return Generated(step.text, sizes, step.tasks, names)


def _names(tasks: list[Task]) -> Checked:
    """What a message says of tasks and operands."""
    kernels = [
        " ".join(filter(None, [task.layer or "step", type(task.kernel).__name__, task.label]))
        for task in tasks
    ]
    operands = [
        [
            f"operand {number}, {operand.buffer.place} {operand.buffer.type}"
            for number, operand in enumerate(task.operands)
        ]
        for task in tasks
    ]
    return Checked(kernels, operands)


def _show(program: Program, lowered: Lowered, planned: Plan, text: str, target: Target) -> None:
    wanted = config.dump()
    if "graph" in wanted:
        _dump("graph", "\n".join(map(repr, program.nodes())))
    if "fuse" in wanted:
        _dump("fuse", "\n".join(fuse.describe(fusion) for fusion in lowered.fusions))
    if "plan" in wanted:
        _dump("plan", planned.describe())
    if "llvm" in wanted:
        _dump("llvm", text)
    if "asm" in wanted:
        _dump("asm", engine.assembly(text, target))


def _dump(title: str, text: str) -> None:
    sys.stdout.write(f"; ---- {title}\n{text}\n")

"""Reductions: over the last axis with the maps around them, over others, over the batch."""

from __future__ import annotations

from lamina.ir.contractions import Window
from lamina.ir.elementary import Reduce
from lamina.ir.graph import Node
from lamina.ir.reductions import ArgReduce
from lamina.ir.winners import WindowArgMax
from lamina.llvm import kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.kernel import Core, Instruction, Store
from lamina.llvm.lowering.windows import lower_window
from lamina.llvm.lowering.workspace import Workspace, names, with_axis
from lamina.llvm.views import axis, identity


def lower_rows(work: Workspace, group: Group) -> None:
    """Reductions over the last axis, and the maps before, between and behind them."""
    operands = Operands()
    rank = len(group.space)
    count = rank + 1
    core = {node: Core(i, node.dtype) for i, node in enumerate(group.anchors)}
    builder = BodyBuilder(count, operands, work.memory, dict(core), group.members)
    full, row = identity(count), identity(rank, count)
    stages = []
    for anchor in group.anchors:
        assert isinstance(anchor.op, Reduce)
        argument = builder.value(anchor.inputs[0], full)
        stages.append(kernel.Stage(argument, anchor.op.kind))
    whole_rows = [n for n in group.members if n.shape != group.space]
    per_row = [*group.anchors, *(n for n in group.members if n.shape == group.space)]
    stores = work.stores(group, builder, full, whole_rows)
    row_stores = work.stores(group, builder, row, per_row)
    trimmed = tuple(
        Store(s.argument, s.operand, s.dtype, s.offset, s.strides[:rank]) for s in row_stores
    )
    split, mode, extent = work.split(group.space, (group.columns,))
    space, body = group.space, builder.body()
    if not space:
        space, extent = (1,), 1
        body, stores, trimmed = with_axis(body), with_axis(stores), with_axis(trimmed)
    spec = kernel.RowGroup(space, group.columns, body, tuple(stages), stores, trimmed, split)
    work.add(spec, operands, names(group), mode, extent)


def lower_reduction(work: Workspace, group: Group) -> None:
    """Reductions over other axes; those over the batch leave a sum for each part of it."""
    operands = Operands()
    anchor = group.anchors[0]
    if isinstance(anchor.op, (Window, WindowArgMax)):
        lower_window(work, group)
        return
    source = anchor.inputs[0]
    rank = len(source.shape)
    axes = group.reduced
    if isinstance(anchor.op, ArgReduce):
        axes = (anchor.op.axis % rank,)
    kept = [i for i in range(rank) if i not in axes]
    space = tuple(source.shape[i] for i in kept)
    reduced = tuple(source.shape[i] for i in axes)
    places = {old: new for new, old in enumerate((*kept, *axes))}
    index = tuple(axis(places[i], rank) for i in range(rank))
    builder = BodyBuilder(rank, operands, work.memory)
    results = []
    for node in group.anchors:
        argument = builder.value(node.inputs[0], index)
        kind = node.op.kind if isinstance(node.op, (Reduce, ArgReduce)) else "sum"
        results.append((argument, f"arg{kind}" if isinstance(node.op, ArgReduce) else kind))
    core: dict[Node, Instruction] = {
        node: Core(i, node.dtype) for i, node in enumerate(group.anchors)
    }
    after = BodyBuilder(len(space), operands, work.memory, core, group.members)
    split, mode, extent = work.split(space, reduced, group.partial)
    stores: tuple[Store, ...]
    if mode == "parts":
        partial = [(node, work.partial_views(node)) for node in group.anchors]
        stores = tuple(
            after.store(after.value(node, identity(len(space))), views[0],
                        identity(len(space)), node.dtype)
            for node, views in partial
        )  # fmt: skip
    else:
        partial = []
        stores = work.stores(group, after, identity(len(space)), group.nodes())
    spec = kernel.Reduction(
        space,
        reduced,
        builder.body(),
        tuple(results),
        after.body(),
        stores,
        split,
        accumulate=mode == "parts",
    )
    work.add(spec, operands, names(group), mode, extent)
    for node, views in partial:
        work.keep_partial(node, views)

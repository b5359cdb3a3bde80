"""Products with rows of a small table: multiply the table, then look up rows of the product.

An embedding of few symbols (characters, pixels, categories) in front of a product meets each row
of its table many times in a batch. The product of a row is the same each time, so one product
with the table serves all; backwards, what reaches the same row is added before it is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina.ir.contractions import Dot, dot
from lamina.ir.control import Body, Scan, scan
from lamina.ir.elementary import full
from lamina.ir.graph import Node, input_node, rewrite
from lamina.ir.indexing import Gather, Scatter, gather, scatter
from lamina.ir.movement import Transpose, inverse, transpose
from lamina.transform.loops import replaced_scans
from lamina.transform.scan import is_zero
from lamina.types import Type, fixed

Pays = Callable[[int, int, int | None], bool]
_Often = Callable[[Type, Type, int | None], bool]


def use_tables(roots: Sequence[Node], capacity: int, pays: Pays) -> list[Node]:
    """Move products in front of look-ups, and behind sums by row.

    Before: dot(gather(table, index), w)               After: gather(dot(table, w), index)
    Before: dot(transpose(gather(table, index)), g)    After: dot(transpose(table), sums)
    Before: scatter_add(0, index, dot(g, w))           After: dot(sums, w)

    where `sums` is scatter_add(0, index, g). A batch has room for `capacity` rows.

    pays   from the rows of a table, how many are looked up, and the terms of the products that
           sums by row save (None where there are none), whether it is worth while
    """

    def often(table: Type, index: Type, terms: int | None) -> bool:
        size = table.shape[0]
        return isinstance(size, int) and pays(size, index.size_at(capacity), terms)

    def visit(node: Node) -> Node:
        found = None
        if isinstance(node.op, Dot) and not node.op.batch and node.type.is_float:
            found = _looked_up(node, node.op, often) or _summed_first(node, node.op, often)
        elif isinstance(node.op, Scatter):
            found = _multiplied_last(node, node.op, often)
        return found or node

    new = rewrite(roots, visit)
    return new if new == list(roots) else _inside_loops(new, often)


def _lookup(node: Node) -> tuple[Node, Node] | None:
    """(table, index) if the node is `table[index]` of rows that are vectors."""
    if isinstance(node.op, Gather):
        table, index = node.inputs
        plain = node.op.axis == 0 and node.op.batch == 0
        static = table.type.rank == 2 and table.type.batch_axis is None
        return (table, index) if plain and static else None
    if isinstance(node.op, Transpose):
        found, perm = _lookup(node.inputs[0]), node.op.perm
        if found and perm[-1] == len(perm) - 1:
            return found[0], transpose(found[1], perm[:-1])
    return None


def _looked_up(node: Node, op: Dot, often: _Often) -> Node | None:
    x, w = node.inputs
    found = _lookup(x)
    if found is None or w.type.batch_axis is not None or len(op.contract) != 1:
        return None
    table, index = found
    (axis, other), *_ = op.contract
    if axis != x.type.rank - 1 or not often(table.type, index.type, None):
        return None
    return gather(dot(table, w, [(1, other)], out_dtype=op.out_dtype), index)


def _summed_first(node: Node, op: Dot, often: _Often) -> Node | None:
    for side in (0, 1):
        found = _lookup(node.inputs[side])
        if found is None:
            continue
        table, index = found
        other = node.inputs[1 - side]
        pairs = {pair[side]: pair[1 - side] for pair in op.contract}
        if sorted(pairs) != list(range(index.type.rank)):
            continue
        if not _sums_pay(table.type, index.type, other, often):
            continue
        order = [pairs[axis] for axis in sorted(pairs)]
        rest = [axis for axis in range(other.type.rank) if axis not in order]
        sums = _sums(table, index, transpose(other, [*order, *rest]))
        both = (table, sums) if side == 0 else (sums, table)
        return dot(*both, [(0, 0)], out_dtype=op.out_dtype)
    return None


def _sums_pay(table: Type, index: Type, rows: Node, often: _Often) -> bool:
    """Half precision is left alone: its products are summed in more bits than it has."""
    return rows.dtype in ("float32", "float64") and often(table, index, fixed(table.shape[1]))


def _sums(table: Node, index: Node, rows: Node) -> Node:
    """For each row of the table, the sum of what stands in `rows` where it is looked up."""
    shape = (table.shape[0], *rows.shape[index.type.rank :])
    return scatter("add", full(shape, 0, rows.dtype), index, rows)


def _multiplied_last(node: Node, op: Scatter, often: _Often) -> Node | None:
    base, index, rows = node.inputs
    static = base.type.rank == 2 and base.type.batch_axis is None
    if op.kind != "add" or op.axis or op.batch or not static or not is_zero(base):
        return None
    while isinstance(rows.op, Transpose) and rows.op.perm[-1] == len(rows.op.perm) - 1:
        index = transpose(index, inverse(rows.op.perm[:-1]))
        rows = rows.inputs[0]
    if not isinstance(rows.op, Dot) or rows.op.batch:
        return None
    g, w = rows.inputs
    contracted = [axis for axis, _ in rows.op.contract]
    free = [axis for axis in range(g.type.rank) if axis not in contracted]
    alone = w.type.batch_axis is None and w.type.rank == len(contracted) + 1
    if not alone or len(free) != index.type.rank:
        return None
    if not _sums_pay(base.type, index.type, g, often):
        return None
    sums = _sums(base, index, transpose(g, [*free, *contracted]))
    pairs = [(1 + place, axis) for place, (_, axis) in enumerate(rows.op.contract)]
    return dot(sums, w, pairs, out_dtype=rows.op.out_dtype)


# ----------------------------------------------------------------------------------- loops


def _inside_loops(roots: Sequence[Node], often: _Often) -> list[Node]:
    """Look up rows in the step that reads them, instead of all beforehand.

    Before: scan(x[t]) over x = table[index]    After: scan(table[i[t]]) over i = index
    """

    def replacement(node: Node, inputs: tuple[Node, ...]) -> Sequence[Node] | None:
        assert isinstance(node.op, Scan)
        op = node.op
        carries, elements, constants = op.split(op.body.parameters)
        first, walked, same = (list(part) for part in op.split(inputs))
        known: dict[Node, Node] = {}
        parameters, tables = list(elements), list(constants)
        for number, (parameter, value) in enumerate(zip(elements, walked, strict=True)):
            found = _lookup(value)
            if found is None or not often(found[0].type, found[1].type, None):
                continue
            table, index = found
            step = Type(index.shape[1:], index.dtype)
            parameters[number], walked[number] = input_node(step), index
            tables.append(input_node(table.type))
            same.append(table)
            known[parameter] = gather(tables[-1], parameters[number])
        if not known:
            return None
        results = rewrite(op.body.results, lambda node: node, known)
        body = Body((*carries, *parameters, *tables), tuple(results))
        return scan(body, op.length, first, walked, same, reverse=op.reverse)

    return replaced_scans(roots, replacement)

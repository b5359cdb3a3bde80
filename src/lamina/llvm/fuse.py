"""Which values are stored, and which are computed together: the graph cut into groups.

A *group* becomes one kernel (a strided input gradient or a concatenation becomes several). Its
*anchors* are the ops with loops of their own: products, reductions, windows. Its *members* are
maps that are computed while the anchor's result is still in registers. Every other map is
computed inside its reader, as often as it is read. `describe` prints the result; it is what
`LAMINA_DUMP=fuse` shows.

A value is stored when it leaves the program, when an anchor needs it in memory, when it is dear
and read more than once, or when a reader would repeat it over a broadcast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad, Dot, Window
from lamina.ir.control import Scan, While
from lamina.ir.elementary import SCALARS, Broadcast, Map, Reduce
from lamina.ir.graph import Const, Input, Node, Pick, Rows, toposort, users
from lamina.ir.indexing import DynamicSlice, DynamicUpdate, Gather, Scatter
from lamina.ir.movement import Concat, Iota, Pad, Reshape, Slice, Transpose
from lamina.ir.random import RandomBits
from lamina.ir.reductions import ArgReduce
from lamina.ir.scalar import Cast, StopGradient
from lamina.ir.winners import SparseFilterGrad, WindowArgMax, WinnerFilterGrad
from lamina.llvm import choices
from lamina.llvm.views import (
    Buffer,
    View,
    identity,
    is_contiguous,
    moved_view,
    reshaped_index,
    whole,
)
from lamina.types import Batch, Shape

VIEWS = (Transpose, Broadcast, Slice, Reshape)
LEAVES = (Const, Rows, Input)
INLINE = (Map, Cast, StopGradient, Iota, RandomBits, Pad, Gather, DynamicSlice, DynamicUpdate)
CONTRACTIONS = (Dot, Conv, ConvInputGrad, ConvFilterGrad)


@dataclass(eq=False)
class Group:
    """Nodes computed by one kernel.

    kind      "map", "contract", "reduce", "rows" (over the last axis) or "special"
    space     the shape of the results; for "rows" without the last axis
    columns   the extent of the last axis, for "rows"
    reduced   axes that an anchor of kind "reduce" sums over
    partial   the anchors sum over the batch, so each part of it gives a partial sum
    """

    number: int
    kind: str
    space: Shape
    anchors: list[Node] = field(default_factory=list)
    members: list[Node] = field(default_factory=list)
    columns: int = 0
    reduced: tuple[int, ...] = ()
    partial: bool = False

    def nodes(self) -> list[Node]:
        return [*self.anchors, *self.members]


@dataclass(eq=False)
class Fusion:
    """The groups of a graph, in an order in which they can run."""

    groups: list[Group]
    home: dict[Node, Group]
    capacity: int
    inputs: frozenset[Node] = frozenset()

    def stored(self, node: Node) -> bool:
        return node in self.home or isinstance(node.op, Input)


class Fuser:
    """Cut the graph of `roots` into groups; `capacity` is the batch's room in memory.

    parts    in how many parts the batch is summed; a sum that is taken whole may have members
    in_loop  whether this is the body of a time loop, where no thread waits for others
    """

    def __init__(
        self, roots: Sequence[Node], capacity: int, *, parts: int = 1, in_loop: bool = False
    ) -> None:
        self.roots = list(dict.fromkeys(roots))
        self.capacity, self.parts, self.in_loop = capacity, parts, in_loop
        self.order = _independent_first(toposort(self.roots))
        self.position = {node: i for i, node in enumerate(self.order)}
        self.readers = users(self.order)
        self.needs: set[Node] = set()
        self.contiguous: set[Node] = set()
        self.marked: set[Node] = set()
        self.cost: dict[Node, tuple[int, int]] = {}
        self.groups: list[Group] = []
        self.home: dict[Node, Group] = {}
        self._memory: dict[Node, Buffer] = {}
        self._views: dict[Node, View | None] = {}
        self._sources: dict[Node, frozenset[Node]] = {}

    def run(self) -> Fusion:
        self._find_needs()
        self._mark()
        for node in self.order:
            if isinstance(node.op, Input):
                continue
            if node in self.marked or self.is_anchor(node):
                self._place(node)
        return Fusion(self.groups, self.home, self.capacity)

    @staticmethod
    def is_anchor(node: Node) -> bool:
        if isinstance(node.op, Pad):
            return any(node.op.interior)
        return not isinstance(node.op, (*VIEWS, *LEAVES, *INLINE, Pick))

    # ------------------------------------------------------------------ what is stored

    def _find_needs(self) -> None:
        """Which values an op reads through memory, walked from the readers to the read."""
        for node in reversed(self.order):
            op = node.op
            if isinstance(op, CONTRACTIONS):
                self.needs.update(node.inputs)
            elif isinstance(op, (Reduce, ArgReduce, Concat, Pad, Pick, *LEAVES)):
                pass
            elif isinstance(op, (Window, WindowArgMax, Scan, While)):
                self.needs.update(node.inputs)
            elif isinstance(op, (Gather, DynamicSlice)):
                self.needs.add(node.inputs[0])
            elif isinstance(op, DynamicUpdate):
                self.needs.add(node.inputs[1])
            elif isinstance(op, VIEWS):
                if node in self.needs:
                    self.needs.add(node.inputs[0])
                if node in self.contiguous and isinstance(op, Reshape):
                    self.contiguous.add(node.inputs[0])
            elif isinstance(op, Scatter):
                self.needs.update(node.inputs[1:])
                self.contiguous.update(node.inputs[1:])
            elif not isinstance(op, INLINE):
                self.needs.update(node.inputs)
                self.contiguous.update(node.inputs)

    def view(self, node: Node) -> View | None:
        """How the value would lie in memory if all that is marked so far were stored."""
        if node not in self._views:
            self._views[node] = self._view(node)
        return self._views[node]

    def _view(self, node: Node) -> View | None:
        if isinstance(node.op, Input) or self.is_anchor(node) or node in self.marked:
            return whole(Buffer(node.type, "shared"), self.capacity)
        if isinstance(node.op, Pick):
            return whole(Buffer(node.type, "shared"), self.capacity)
        if isinstance(node.op, VIEWS):
            source = self.view(node.inputs[0])
            if source is not None:
                return moved_view(node.op, source, node.shape, self.capacity)
        return None

    def _mark(self) -> None:
        for node in self.order:
            self.cost[node] = self._tree(node)
            if isinstance(node.op, LEAVES) or self.is_anchor(node) or isinstance(node.op, Pick):
                continue
            moved = isinstance(node.op, (*VIEWS, Pad)) and self.view(node) is None
            leaf = bool(node.inputs) and isinstance(node.inputs[0].op, LEAVES)
            unreadable = moved and not leaf and not self._linear(node)
            if unreadable:
                self._store(node.inputs[0])
                self.cost[node] = self._tree(node)
            if self._must_store(node) or (unreadable and self.view(node) is None):
                self._store(node)

    def _store(self, node: Node) -> None:
        self.marked.add(node)
        self._views.clear()
        self.cost[node] = (0, 1)

    def _linear(self, node: Node) -> bool:
        if isinstance(node.op, Reshape):
            source = node.inputs[0].shape
            return reshaped_index(source, node.shape, identity(len(node.shape))) is not None
        return not (isinstance(node.op, Pad) and any(node.op.interior))

    def _tree(self, node: Node) -> tuple[int, int]:
        """(cost of computing the node from what is stored, number of instructions)."""
        if isinstance(node.op, LEAVES) or node in self.marked or self.is_anchor(node):
            return 0, 1
        own = 0
        if isinstance(node.op, Map):
            own = SCALARS[node.op.fn].cost
        elif isinstance(node.op, (Cast, Pad)):
            own = 1
        elif isinstance(node.op, RandomBits):
            own = choices.RANDOM_COST
        elif isinstance(node.op, (Gather, DynamicSlice, DynamicUpdate)):
            own = choices.LOOKUP_COST
        costs = [self.cost[parent] for parent in node.inputs]
        return own + sum(c for c, _ in costs), 1 + sum(size for _, size in costs)

    def _must_store(self, node: Node) -> bool:
        if node in self.roots:
            return True
        if node in self.needs:
            view = self.view(node)
            if view is None:
                return not isinstance(node.op, (Const, Rows))
            return node in self.contiguous and not is_contiguous(view, self.capacity)
        if isinstance(node.op, VIEWS):
            return False
        cost, size = self.cost[node]
        if size > choices.LARGEST_TREE:
            return True
        readers = self.readers[node]
        if cost and any(self._repeats(reader, node) for reader in readers):
            return True
        return len(set(readers)) > 1 and cost > choices.INLINE_COST

    def _repeats(self, reader: Node, node: Node) -> bool:
        """Whether computing `node` inside this reader would compute elements several times."""
        match reader.op:
            case Broadcast():
                return _elements(reader.shape) > _elements(node.shape)
            case Transpose() | Reshape() | Slice() | Pad():
                return any(self._repeats(further, reader) for further in self.readers[reader])
            case Gather() | DynamicSlice():
                return True
        return False

    # ------------------------------------------------------------------ what runs together

    def _place(self, node: Node) -> None:
        needed = self.dependencies(node)
        latest = max((self.home[d].number for d in needed if d in self.home), default=-1)
        group = None
        if isinstance(node.op, Reduce):
            group = self._place_reduction(node, needed, latest)
        elif isinstance(node.op, (Window, WindowArgMax)):
            group = self._place_window(node)
        elif not self.is_anchor(node):
            group = self._place_member(node, needed, latest)
        if group is None:
            group = self._new_group(node)
        (group.anchors if self.is_anchor(node) else group.members).append(node)
        self.home[node] = group
        for reader in self.readers[node]:
            if isinstance(reader.op, Pick):
                self.home[reader] = group

    def dependencies(self, node: Node) -> dict[Node, str]:
        """What is stored and read by `node`, and how: "same" index, "row" of it, or "other"."""
        found: dict[Node, str] = {}
        seen: set[tuple[Node, str]] = set()
        through_memory = isinstance(node.op, CONTRACTIONS) or not isinstance(
            node.op, (*VIEWS, *INLINE, Reduce, ArgReduce)
        )
        stack = [(parent, self._relation(node, "same")) for parent in node.inputs]
        if through_memory:
            stack = [(parent, "other") for parent in node.inputs]
        elif isinstance(node.op, Reduce):
            stack = [(parent, "same") for parent in node.inputs]
        worst = {"same": 0, "row": 1, "other": 2}
        while stack:
            current, relation = stack.pop()
            if (current, relation) in seen:
                continue
            seen.add((current, relation))
            if current in self.home:
                known = found.get(current)
                if known is None or worst[relation] > worst[known]:
                    found[current] = relation
                continue
            following = self._relation(current, relation)
            stack.extend((parent, following) for parent in current.inputs)
        return found

    @staticmethod
    def _relation(node: Node, relation: str) -> str:
        """How the inputs of an inlined node are read, given how the node itself is."""
        match node.op:
            case Map() | Cast() | StopGradient():
                return relation
            case Broadcast(axes=axes):
                rank = len(node.shape)
                source = node.inputs[0].shape
                leading = tuple(axes) == tuple(range(rank - 1))
                if leading and relation == "same" and source == node.shape[:-1]:
                    return "row"
        return "other"

    def _place_member(self, node: Node, needed: dict[Node, str], latest: int) -> Group | None:
        if latest >= 0:
            group = self.groups[latest]
            inside = {d: how for d, how in needed.items() if self.home[d] is group}
            if self._fits(group, node, inside):
                return group
        sources = self.sources(node)
        for candidate in reversed(self.groups[max(latest, 0) :]):
            if candidate.kind == "map" and candidate.space == node.shape:
                own = {d: how for d, how in needed.items() if self.home[d] is candidate}
                shared = any(sources & self.sources(member) for member in candidate.members)
                if self._fits(candidate, node, own) and (own or shared):
                    return candidate
        return None

    def sources(self, node: Node) -> frozenset[Node]:
        """The stored values and inputs that a map is computed from."""
        found = self._sources.get(node)
        if found is None:
            gathered: set[Node] = set()
            stack = list(node.inputs)
            while stack:
                current = stack.pop()
                if current in self.home or isinstance(current.op, Input):
                    gathered.add(current)
                else:
                    stack.extend(current.inputs)
            found = self._sources[node] = frozenset(gathered)
        return found

    def _fits(self, group: Group, node: Node, inside: dict[Node, str]) -> bool:
        if group.partial or group.kind == "special":
            return False
        if len(group.members) >= choices.LARGEST_GROUP:
            return False
        if group.kind == "rows":
            full = (*group.space, group.columns)
            return node.shape in (full, group.space) and all(
                self._row_reading(group, d, how, node.shape == full) for d, how in inside.items()
            )
        if isinstance(group.anchors[0].op, ArgReduce) if group.anchors else False:
            return False
        if group.kind == "contract" and len(group.anchors[0].inputs) > 2 and self._asks_rows(node):
            # To the kernel of a counted product the rows are those that are counted.
            return False
        if group.kind == "contract" and isinstance(node.op, Map):
            # Results of hardly any columns come one by one; a map of its own fills vectors.
            alone = group.space[-1] in choices.HARDLY_ANY_COLUMNS
            if alone and SCALARS[node.op.fn].cost > choices.INLINE_COST:
                return False
        return node.shape == group.space and all(how == "same" for how in inside.values())

    def _asks_rows(self, node: Node) -> bool:
        """Whether the number of rows present is computed in a map, not read from memory."""
        if isinstance(node.op, Rows):
            return True
        return any(parent not in self.home and self._asks_rows(parent) for parent in node.inputs)

    @staticmethod
    def _row_reading(group: Group, read: Node, how: str, full: bool) -> bool:
        row_value = read.shape == group.space
        if full:
            return how == ("row" if row_value else "same")
        return row_value and how == "same"

    def _place_reduction(self, node: Node, needed: dict[Node, str], latest: int) -> Group | None:
        assert isinstance(node.op, Reduce)
        source = node.inputs[0]
        axes = tuple(sorted(axis % len(source.shape) for axis in node.op.axes))
        if self.over_last(node):
            group = self.groups[latest] if latest >= 0 else None
            if group is None or group.kind != "rows":
                return None
            inside = {d: how for d, how in needed.items() if self.home[d] is group}
            if (*group.space, group.columns) != source.shape:
                return None
            fits = all(self._row_reading(group, d, how, True) for d, how in inside.items())
            return group if fits else None
        if not self.over_batch(node):
            return None
        for candidate in reversed(self.groups[latest + 1 :]):
            if (
                candidate.kind == "reduce"
                and candidate.partial
                and candidate.reduced == axes
                and candidate.anchors[0].inputs[0].shape == source.shape
                and set(needed) & set(self.dependencies(candidate.anchors[0]))
            ):
                return candidate
        return None

    def _place_window(self, node: Node) -> Group | None:
        """Maximum and place of the maximum of the same windows are one walk over them."""
        for other in self.readers[node.inputs[0]]:
            group = self.home.get(other)
            if (
                group is not None
                and other is not node
                and isinstance(other.op, (Window, WindowArgMax))
                and _windows(other) == _windows(node)
            ):
                return group
        return None

    @staticmethod
    def over_last(node: Node) -> bool:
        """A reduction over the last axis alone, of a row that is long enough to matter."""
        if not isinstance(node.op, Reduce):
            return False
        shape = node.inputs[0].shape
        axes = tuple(axis % len(shape) for axis in node.op.axes)
        return axes == (len(shape) - 1,) and isinstance(shape[-1], int) and shape[-1] > 0

    def over_batch(self, node: Node) -> bool:
        """Whether the node sums over the batch, so that parts of the batch are summed apart."""
        match node.op:
            case Reduce() | Dot() if self.parts == 1:
                return False
            case Reduce(kind="sum", axes=axes):
                source = node.inputs[0].type
                if source.batch_axis is None:
                    return False
                return source.batch_axis in {axis % source.rank for axis in axes}
            case Dot(contract=contract):
                a = node.inputs[0].type
                over = any(axis % a.rank == a.batch_axis for axis, _ in contract)
                return over and not self._sums_whole(node)
            case ConvFilterGrad() | WinnerFilterGrad() | SparseFilterGrad():
                return node.inputs[0].type.batch_axis is not None
        return False

    def _sums_whole(self, product: Node) -> bool:
        operands = sum(parent.type.bytes_at(self.capacity) for parent in product.inputs)
        sums = product.type.bytes_at(self.capacity)
        return not self.in_loop and choices.sums_whole(operands, sums, self.parts)

    def _new_group(self, node: Node) -> Group:
        op = node.op
        group = Group(len(self.groups), "map", () if len(node.types) > 1 else node.shape)
        if isinstance(op, CONTRACTIONS):
            group.kind = "contract"
            group.partial = self.over_batch(node)
        elif self.over_last(node):
            group.kind = "rows"
            group.columns = node.inputs[0].shape[-1]
        elif isinstance(op, (Reduce, ArgReduce, Window, WindowArgMax)):
            group.kind = "reduce"
            group.partial = self.over_batch(node)
            if isinstance(op, Reduce):
                rank = len(node.inputs[0].shape)
                group.reduced = tuple(sorted(axis % rank for axis in op.axes))
        elif self.is_anchor(node):
            group.kind = "special"
            group.partial = self.over_batch(node)
        self.groups.append(group)
        return group


def _independent_first(order: list[Node]) -> list[Node]:
    """What does not depend on the batch (step sizes, counters) before all that does.

    Then a group of updates finds everything computed that it needs, and stays one group.
    """
    dependent: set[Node] = set()
    for node in order:
        own = any(type.batch_axis is not None for type in node.types)
        if own or any(parent in dependent for parent in node.inputs):
            dependent.add(node)
    return [n for n in order if n not in dependent] + [n for n in order if n in dependent]


def describe(fusion: Fusion) -> str:
    """One line a group: number, kind, space, what it computes."""
    lines = []
    for group in fusion.groups:
        names = ", ".join(f"{_label(node)}" for node in group.nodes())
        extent = f" over {group.columns}" if group.kind == "rows" else ""
        partial = " partial" if group.partial else ""
        lines.append(
            f"{group.number:4} {group.kind:8}{partial} {_shape(group.space)}{extent}: {names}"
        )
    return "\n".join(lines)


def _windows(node: Node) -> tuple[object, ...]:
    """What walk over its input a pooling takes; its own where it is no maximum."""
    match node.op:
        case WindowArgMax(size=size):
            return "max", size, size, ((0, 0), (0, 0))
        case Window(kind="max", size=size, strides=strides, padding=padding):
            return "max", size, strides, padding
    return (node,)


def _label(node: Node) -> str:
    name = node.op.fn if isinstance(node.op, Map) else node.op.name
    return f"{node.scope}:{name}" if node.scope else name


def _shape(shape: Iterable[object]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _elements(shape: Shape) -> int:
    total = 1
    for size in shape:
        total *= size.factor * 1_000_003 if isinstance(size, Batch) else size
    return total

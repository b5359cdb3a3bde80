"""Loops and conditions under construction: the `with` blocks of `Emit`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from lamina.llvm.values import I1, I64, Index, Value, Writer


class Blocks(Writer, Protocol):
    """What blocks need of the function that they belong to."""

    block: str

    @property
    def depth(self) -> int:
        """How many loops stand around this place."""

    def fresh(self) -> str:
        """A name for a value."""

    def label(self) -> str:
        """A name for a block."""

    def begin(self, label: str) -> None:
        """Start a block."""

    def open_scope(self) -> None:
        """From here on pure operations are placed inside."""

    def close_scope(self) -> None:
        """The end of what `open_scope` began."""

    def reserve(self) -> list[str]:
        """An empty stretch of lines here, to be filled in later."""

    def akin(self, value: Value, other: Value) -> Value:
        """The value, which points into the buffer that `other` points to."""


class Block:
    """What stands in the `with` block; an exception inside leaves it unfinished."""

    def __init__(self, emit: Blocks) -> None:
        self.emit = emit

    def finish(self) -> None:
        """Write what ends the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()


class Loop(Block):
    """A loop under construction; see `Emit.loop`."""

    def __init__(
        self,
        emit: Blocks,
        start: Index,
        stop: Index,
        step: int,
        carry: list[Value],
        *,
        nonempty: bool,
    ) -> None:
        super().__init__(emit)
        self.start = start
        self.stop = stop
        self.step = step
        self.carry = carry
        self.next: Sequence[Value] = ()
        self.result: list[Value] = []
        self.trips: int | None = None
        if start.number is not None and stop.number is not None:
            self.trips = max(0, -(-(stop.number - start.number) // step))
        self.nonempty = nonempty or bool(self.trips)
        self._initial = carry
        self._before = self._body = self._after = ""
        self._head: list[str] = []
        self.index = start

    def __enter__(self) -> Self:
        if self.trips == 1:
            return self
        emit = self.emit
        self._body, self._after = emit.label(), emit.label()
        start, stop = self.start.on(emit), self.stop.on(emit)
        empty = None if self.nonempty else start < stop
        emit.open_scope()
        if empty is None:
            emit.effect("void", f"br label %{self._body}")
        else:
            emit.effect("void", f"br i1 {empty.text}, label %{self._body}, label %{self._after}")
        self._before = emit.block
        emit.begin(self._body)
        self._head = emit.reserve()
        depth = emit.depth
        self._counter = Value(emit, I64, emit.fresh(), depth)
        self._start, self._stop = start, stop
        self.index = Index(self._counter)
        self.carry = [emit.akin(Value(emit, c.type, emit.fresh(), depth), c) for c in self._initial]
        return self

    def finish(self) -> None:
        if self.trips == 1:
            self.result = list(self.next)
            return
        emit = self.emit
        after = emit.effect(I64, f"add nsw i64 {self._counter.text}, {self.step}")
        latch = emit.block
        rows = zip(
            [self._counter, *self.carry],
            [self._start, *self._initial],
            [after, *self.next],
            strict=True,
        )
        for phi, first, later in rows:
            self._head.append(
                f"{phi.text} = phi {phi.type} "
                f"[{first.text}, %{self._before}], [{later.text}, %{latch}]"
            )
        again = emit.effect(I1, f"icmp slt i64 {after.text}, {self._stop.text}")
        emit.effect("void", f"br i1 {again.text}, label %{self._body}, label %{self._after}")
        emit.close_scope()
        emit.begin(self._after)
        for first, later in zip(self._initial, self.next, strict=True):
            last = f"[{later.text}, %{latch}]"
            if not self.nonempty:
                last = f"[{first.text}, %{self._before}], {last}"
            final = emit.effect(first.type, f"phi {first.type} {last}")
            self.result.append(emit.akin(final, first))


class Repeat(Block):
    """A loop of unknown length under construction; see `Emit.repeat`."""

    def __init__(self, emit: Blocks) -> None:
        super().__init__(emit)
        self._head = self._after = ""

    def __enter__(self) -> Self:
        emit = self.emit
        self._head, self._after = emit.label(), emit.label()
        emit.open_scope()
        emit.effect("void", f"br label %{self._head}")
        emit.begin(self._head)
        return self

    def only_if(self, condition: Value) -> None:
        """Leave the loop here where the condition (i1) does not hold."""
        body = self.emit.label()
        branch = f"br i1 {condition.text}, label %{body}, label %{self._after}"
        self.emit.effect("void", branch)
        self.emit.begin(body)

    def finish(self) -> None:
        self.emit.effect("void", f"br label %{self._head}")
        self.emit.close_scope()
        self.emit.begin(self._after)


class When(Block):
    """A block under a condition; see `Emit.when`."""

    def __init__(self, emit: Blocks, condition: Value) -> None:
        super().__init__(emit)
        self.condition = condition
        self._after = ""

    def __enter__(self) -> None:
        emit = self.emit
        body, self._after = emit.label(), emit.label()
        emit.open_scope()
        emit.effect("void", f"br i1 {self.condition.text}, label %{body}, label %{self._after}")
        emit.begin(body)

    def finish(self) -> None:
        self.emit.effect("void", f"br label %{self._after}")
        self.emit.close_scope()
        self.emit.begin(self._after)

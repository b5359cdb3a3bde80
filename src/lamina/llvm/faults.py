"""What a checked build writes down when a kernel leaves its memory, and the error made of it.

With `LAMINA_CHECK=bounds` every access is compared with the extent of its buffer (see `checked`).
The first that lies outside is noted in the call's fault area; it and all that follow are sent to
the blank bytes behind the note, so that nothing else is touched.

    0 i64 whether there is a note    8 i64 task        16 i64 operand    24 i64 offset in bytes
    32 i64 bytes                     40 i64 size       48 i64 whether it was a write
    64 blank bytes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamina.errors import LaminaError, layout

TASK, OPERAND, OFFSET, BYTES, SIZE, WRITES = (8 * number for number in range(1, 7))
BLANK, BLANK_BYTES = 64, 512
_AREA_BYTES = BLANK + BLANK_BYTES
_ALIGNMENT = 64

# Stand in for the number of an operand, or of a task.
SCRATCH, STACK, CONSTANT = -1, -2, -3
ROWS = -1
_PLACES = {SCRATCH: "scratch", STACK: "stack", CONSTANT: "a table of constants"}


class BoundsError(LaminaError, RuntimeError):
    """A kernel of a checked build left the memory of an operand: an error in lamina."""


@dataclass(frozen=True)
class Checked:
    """What messages say of the tasks of a checked build: a name each, and of every operand."""

    tasks: list[str]
    operands: list[list[str]]


class FaultArea:
    """Memory for one note, and the blank bytes that bad accesses go to."""

    def __init__(self) -> None:
        memory = np.zeros(_AREA_BYTES + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        self.memory = memory[start : start + _AREA_BYTES]
        self.note = self.memory[:BLANK].view(np.int64)

    @property
    def address(self) -> int:
        """Where the area begins."""
        return self.memory.ctypes.data

    def check(self, checked: Checked) -> None:
        """BoundsError if there is a note."""
        found, task, operand, offset, count, size, writes, _ = map(int, self.note)
        if not found:
            return
        if task == ROWS:
            kernel, where = "the copying of the batch's rows", "input rows"
        else:
            kernel = checked.tasks[task]
            where = _PLACES.get(operand) or checked.operands[task][operand]
        raise BoundsError(
            layout(
                f"{kernel}: {'wrote' if writes else 'read'} outside of {where}.",
                [
                    ("access", f"{count} bytes at offset {offset}"),
                    ("extent", f"{size} bytes"),
                ],
                hint="this is an error in lamina; states are as they were before this step",
            )
        )

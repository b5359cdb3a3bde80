"""What a call of a compiled step is handed: a table of 64-bit words, and memory.

    SYNC      the sync area of the pool            SHARED    memory that all threads see
    PRIVATE   one block a thread, one after another SCRATCH   the same, for kernels' own use
    FIRST     the first step of this call          STOP      the step not to run any more; a
                                                             thread that ends the call lowers it
    BATCH     rows of a full step                  TOTAL     rows in all
    ORDER     i64 row numbers, or 0 for rows in order
    DEADLINE  when to end the call, or 0           WATCHED   a float32 that must stay finite, or 0
    PROFILE   i64 ticks per thread and task, in a step that was built to be profiled

followed by the addresses of states, inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

SYNC, SHARED, PRIVATE, SCRATCH, FIRST, STOP, BATCH, TOTAL, ORDER, DEADLINE, WATCHED = range(11)
PROFILE = 11
POINTERS = 12


@dataclass(frozen=True)
class Sizes:
    """Bytes of the areas that a call needs, and the operations of a step, about.

    Private and scratch bytes are for each thread.
    """

    shared: int
    private: int
    scratch: int
    work: float

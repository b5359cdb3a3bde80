"""PyDataset: batches by number, computed by threads ahead of time if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class PyDataset:
    """Batches that a user's class computes: override `__len__` and `__getitem__`.

    workers               above 1, this many threads compute batches ahead of the training loop
    use_multiprocessing   accepted for Keras's sake; threads are used, which need no pickling
    max_queue_size        how many batches may wait at most

    >>> class Squares(PyDataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, index):
    ...         return index * index
    >>> list(Squares().batches_in([2, 0]))
    [4, 0]
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """Batch `index`: (x,), (x, y) or (x, y, sample_weight)."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(self, index).")

    def __len__(self) -> int:
        """The number of batches."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__(self).")

    @property
    def num_batches(self) -> int | None:
        """The number of batches; None for a data set without end."""
        return len(self)

    def on_epoch_begin(self) -> None:
        """Called before each pass."""

    def on_epoch_end(self) -> None:
        """Called after each pass, for example to shuffle."""

    def batches_in(self, order: Sequence[int]) -> Iterator[Any]:
        """The batches of the given numbers, in that order, whatever thread computes them."""
        workers = getattr(self, "workers", 1)  # a subclass may not have called our constructor
        if workers <= 1:
            for index in order:
                yield self[index]
            return
        ahead = max(workers, getattr(self, "max_queue_size", 10))
        waiting: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="lamina-data")
        try:
            for index in order:
                waiting.append(pool.submit(self.__getitem__, index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

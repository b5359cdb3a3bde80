"""Progress of a run: a live bar on a terminal, one plain line elsewhere.

Nothing here writes control codes to anything but a terminal, and the bar redraws at most four
times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

REDRAWS_A_SECOND = 4
BAR_CELLS = 20


def format_value(value: Any) -> str:
    """A logged number with four places; small ones in exponent form, as Keras prints them.

    >>> format_value(0.25), format_value(0.0001), format_value(3.0)
    ('0.2500', '1.0000e-04', '3.0000')
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:.4f}" if abs(number) > 1e-3 else f"{number:.4e}"


def format_logs(logs: Mapping[str, Any]) -> str:
    """`name: value` pairs joined by ` - `, in the order given."""
    return " - ".join(f"{name}: {format_value(value)}" for name, value in logs.items())


def format_seconds(seconds: float) -> str:
    """A duration as people read it.

    >>> format_seconds(0.31), format_seconds(12.2), format_seconds(75), format_seconds(3700)
    ('0.3s', '12s', '1:15', '1:01:40')
    """
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_step(seconds: float) -> str:
    """The time of one step.

    >>> format_step(0.0121), format_step(2e-5), format_step(1.5)
    ('12ms', '20us', '2s')
    """
    if seconds >= 1.0:
        return f"{seconds:.0f}s"
    return f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"


class Progress:
    """One bar or line: `start`, any number of `update`s, `finish`.

    label     what stands before it, such as "Epoch 1/3"; may be empty
    total     how many steps there will be, or None where that is not known
    verbose   0 silent, 1 a live bar where the stream is a terminal and a line elsewhere, 2 a line
    unit      what one step is called
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        verbose: int = 1,
        *,
        stream: TextIO | None = None,
        unit: str = "step",
    ) -> None:
        self.label = label
        self.total = total
        self.verbose = verbose
        self.unit = unit
        self.stream = stream or sys.stdout
        self.done = 0
        self.live: Any = None
        self.logs: Mapping[str, Any] = {}
        self.started = time.perf_counter()
        self.first_step: tuple[int, float] | None = None

    @property
    def is_bar(self) -> bool:
        return self.verbose == 1 and bool(getattr(self.stream, "isatty", lambda: False)())

    def start(self) -> None:
        """Begin the clock; a bar appears at once."""
        self.started = time.perf_counter()
        if self.is_bar:
            import rich.console
            import rich.live

            console = rich.console.Console(file=self.stream, highlight=False)
            self.live = rich.live.Live(
                console=console,
                refresh_per_second=REDRAWS_A_SECOND,
                redirect_stdout=self.stream is sys.stdout,
                redirect_stderr=False,
                get_renderable=self._bar,
            )
            self.live.start()

    def update(self, done: int, logs: Mapping[str, Any] | None = None) -> None:
        """`done` steps are finished, with these running values."""
        self.done = done
        if self.first_step is None and done:
            self.first_step = done, time.perf_counter()
        if self.live is not None and logs is not None:
            self.logs = dict(logs)

    def finish(self, logs: Mapping[str, Any] | None = None) -> None:
        """Draw the last state, and leave it standing."""
        if self.total is None:
            self.total = self.done
        if self.live is not None:
            self.logs = dict(logs or {})
            self.live.stop()
            self.live = None
        elif self.verbose:
            self.stream.write(f"{self.line(logs or {})}\n")
            self.stream.flush()

    def abandon(self) -> None:
        """Give the terminal back after an exception."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def line(self, logs: Mapping[str, Any]) -> str:
        """`Epoch 1/3 - 32/32 - 0.3s - 9ms/step - loss: 0.2500`."""
        parts = [
            self.label,
            f"{self.done}/{self.total if self.total is not None else 'Unknown'}",
            *self._times(),
            format_logs(logs),
        ]
        return " - ".join(part for part in parts if part)

    def _times(self) -> list[str]:
        now = time.perf_counter()
        parts = [format_seconds(now - self.started)]
        steps, since = self.done, self.started
        if self.first_step is not None and self.done > self.first_step[0]:
            # What came with the first step was compiling.
            steps, since = self.done - self.first_step[0], self.first_step[1]
        if steps:
            parts.append(f"{format_step((now - since) / steps)}/{self.unit}")
        return parts

    def _bar(self) -> Any:
        import rich.text

        text = rich.text.Text()
        if self.label:
            text.append(f"{self.label} ")
        text.append(f"{self.done}/{self.total or 'Unknown'}", style="bold")
        filled = BAR_CELLS * min(self.done, self.total) // self.total if self.total else 0
        text.append(" ")
        text.append("━" * filled, style="green")
        text.append("━" * (BAR_CELLS - filled), style="dim")
        text.append(f" {' '.join(self._times())}")
        if self.total and 0 < self.done < self.total:
            elapsed = time.perf_counter() - self.started
            left = elapsed / self.done * (self.total - self.done)
            text.append(f" {format_seconds(left)} left", style="dim")
        if self.logs:
            text.append(f" - {format_logs(self.logs)}")
        return text

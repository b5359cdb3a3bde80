"""Progress: plain lines without control codes, and a bar on a terminal."""

import io

import pytest

from lamina.progress import Progress, format_logs, format_value


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, verbose=1, total=3, label="Epoch 1/2"):
    progress = Progress(label, total, verbose, stream=stream)
    progress.start()
    for step in range(1, 4):
        progress.update(step, {"loss": 1 / step})
    progress.finish({"accuracy": 0.5, "loss": 0.25})
    return stream.getvalue()


def test_one_plain_line_when_not_a_terminal():
    text = run(io.StringIO())
    assert text.startswith("Epoch 1/2 - 3/3 - 0.0s - ")
    assert text.endswith("/step - accuracy: 0.5000 - loss: 0.2500\n")
    assert text.count("\n") == 1
    assert "\x1b" not in text and "\r" not in text and "\b" not in text


def test_verbose_two_is_a_line_on_a_terminal_too():
    assert "\x1b" not in run(Terminal(), verbose=2)


def test_silence():
    assert run(io.StringIO(), verbose=0) == ""


def test_a_bar_on_a_terminal():
    text = run(Terminal())
    assert "━" in text
    assert "0.2500" in text


def test_an_unknown_number_of_steps():
    assert "3/3" in run(io.StringIO(), total=None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001, "1.0000e-03"), (0.0011, "0.0011"), (-2.5, "-2.5000"), ("text", "text")],
)
def test_values(value, text):
    assert format_value(value) == text


def test_logs_keep_their_order():
    assert format_logs({"loss": 1.0, "accuracy": 0.5}) == "loss: 1.0000 - accuracy: 0.5000"

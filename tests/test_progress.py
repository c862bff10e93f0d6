"""One bar for work inside other work, and results that stay on standard output."""

import io
import sys

from vae_jax.progress import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_inner_work_gets_a_line_of_the_same_bar(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress(3, "Sweep", "runs") as outer:
        for i in range(3):
            with progress(5, f"Run {i}", "steps") as inner:
                inner(5, note="loss 1")
            print("one line of results")
            outer(1)
    shown = terminal.getvalue()
    assert "Sweep" in shown and "Run 2" in shown and "3/3" in shown
    assert "results" not in shown
    assert capsys.readouterr().out == 3 * "one line of results\n"


def test_a_log_gets_plain_lines_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("vae_jax.progress.time.monotonic", lambda: float(next(clock)))
    with progress(4, "Training", "steps") as advance:
        for _ in range(4):
            advance(note="loss 2")
    assert capsys.readouterr().err.splitlines() == [
        "Training: 2/4 steps, 0.167/s, 0:12 to go, loss 2",
        "Training: 4/4 steps, 0.167/s, loss 2",
    ]

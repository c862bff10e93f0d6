"""Progress for anything that takes more than a few seconds.

A rich bar on a terminal; elsewhere (a log file, CI) a plain line every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PLAIN_LINE_SECONDS = 10.0

# The bar on the terminal while there is one: work inside other work gets a line of the same bar.
_shown: list[Progress] = []


class Advance(Protocol):
    """Advances a progress display."""

    def __call__(self, amount: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(total: int, label: str, unit: str, start: int = 0) -> Iterator[Advance]:
    """Shows progress from `start` to `total`; yields a function that advances it.

    Args:
        total: The count at which the work is done.
        label: What is being done.
        unit: What is counted, such as "images".
        start: The count that is done already, where work is resumed.
    """
    if not sys.stderr.isatty():
        yield _plain_lines(total, label, unit, start)
        return
    with _bar() as bar:
        task = bar.add_task(label, total=total, completed=start, unit=unit, note="")
        try:
            yield lambda amount=1, note="": bar.update(task, advance=amount, note=note)
        finally:
            if len(bar.tasks) > 1:
                bar.remove_task(task)


@contextmanager
def _bar() -> Iterator[Progress]:
    """Yields the bar that is shown already, or a new one for as long as the context."""
    if _shown:
        yield _shown[0]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # The bar owns stderr; results on stdout stay clean for pipes and files.
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
    with bar:
        _shown.append(bar)
        try:
            yield bar
        finally:
            _shown.clear()


def _plain_lines(total: int, label: str, unit: str, start: int) -> Advance:
    began = time.monotonic()
    done, last_line = start, began

    def advance(amount: int = 1, note: str = "") -> None:
        nonlocal done, last_line
        done += amount
        now = time.monotonic()
        if now - last_line < PLAIN_LINE_SECONDS and done < total:
            return
        if done >= total and now - began < PLAIN_LINE_SECONDS:
            return  # Short work ends with the caller's own result line.
        last_line = now
        rate = (done - start) / max(now - began, 1e-9)
        parts = (
            f"{label}: {done}/{total} {unit}".rstrip(),
            f"{rate:.3g}/s" if rate < 100 else f"{rate:,.0f}/s",
            f"{clock((total - done) / rate)} to go" if start < done < total else "",
            note,
        )
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return advance


def clock(seconds: float) -> str:
    """Returns seconds as M:SS or H:MM:SS."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def track(iterable: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
    """Yields the items of `iterable`, and advances a progress display by one after each."""
    with progress(total, label, unit) as advance:
        for item in iterable:
            yield item
            advance()

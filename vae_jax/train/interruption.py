"""SIGTERM and SIGINT: finish the call that is under way, save, leave with a known exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, Self

from vae_jax import processes


class StopSignals:
    """Context in which the first signal is noted and a second one ends the process at once.

    Attributes:
        received: number of the first signal, or None. The exit code of an interrupted run is
            128 + this number: 143 for SIGTERM, 130 for SIGINT. Where several processes train, it
            is what they last agreed on, so that all of them save the same step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._noted = 0  # by this process
        self._agreed: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:
            pass  # Only the main thread may set handlers; elsewhere the caller decides.
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def received(self) -> int | None:
        return self._agreed if processes.several() else self._noted or None

    @received.setter
    def received(self, number: int) -> None:
        self._noted = self._agreed = number

    def agree(self) -> None:
        """Tell the other processes of a signal, and hear of theirs; all call this together."""
        self._agreed = processes.greatest(self._noted) or None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._noted:
            os._exit(128 + number)
        self._noted = number
        name = signal.Signals(number).name
        print(f"{name}: saving a checkpoint; once more to leave at once", file=sys.stderr)

"""Notes the signals that ask a training to save and stop."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from vae_jax import devices


class StopSignals:
    """A context in which the first signal is noted, and a second one ends the process at once.

    Attributes:
        received: The number of the first signal, or None. The exit code of an interrupted run is
            128 + this number: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP. Where several
            processes train, they agree on it, so that all of them save the same step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._noted = 0  # by this process
        self._agreed: int | None = None
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # Only the main thread may set handlers.
        # Python runs no handler while the main thread waits for a compilation or the device: a
        # thread learns of every signal from a pipe.
        self._pipe = reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._previous_pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, args=(reading,), daemon=True)
        self._watcher.start()
        for number in self.SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # `nohup` asks to go on.
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            reading, writing = self._pipe
            signal.set_wakeup_fd(self._previous_pipe)
            os.close(writing)
            self._watcher.join()
            os.close(reading)

    @property
    def received(self) -> int | None:
        return self._agreed if devices.several() else self._noted or None

    @received.setter
    def received(self, number: int) -> None:
        self._noted = self._agreed = number

    def agree(self) -> None:
        """Exchanges signals with the other processes; all of them call this together."""
        self._agreed = devices.greatest(self._noted) or None

    def _note(self, number: int, frame: FrameType | None = None) -> None:
        self._noted = self._noted or number

    def _watch(self, reading: int) -> None:
        stopping = False
        while byte := os.read(reading, 1):
            number = byte[0]
            if number not in self.SIGNALS:
                continue
            if stopping:
                os._exit(128 + number)
            stopping = True
            self._note(number)
            name = signal.Signals(number).name
            with suppress(OSError):  # The terminal may be what has gone.
                os.write(2, f"{name}: saving a checkpoint; once more to leave at once\n".encode())

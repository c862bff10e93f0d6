"""Standard output and error that survive the loss of their reader, and Ctrl-C."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from types import FrameType

# The errors of a reader that has gone (`| head -1`) and of a terminal that was closed.
UNREAD = (errno.EPIPE, errno.EIO)


class _LastingFile(io.FileIO):
    """A file that drops what can no longer be written, and keeps the reason."""

    failure: OSError | None = None

    def write(self, data, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in UNREAD:
                self.failure = self.failure or error
            return len(memoryview(data))


def make_lasting() -> None:
    """Prepares the process for whatever it is started from.

    A broken pipe, a full disk behind standard output, a closed descriptor, a locale without UTF-8
    and warnings that the environment makes errors end no command. What standard output lost other
    than to a reader that had gone is kept for `lost_output`.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # Closed: the next file opened would take its place.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        text = io.TextIOWrapper(
            io.BufferedWriter(_LastingFile(number, "w", closefd=False)),
            encoding=stream.encoding if stream else "utf-8",
            errors="replace",
            line_buffering=True,
        )
        setattr(sys, name, text)
    if "error" in sys.warnoptions:  # They are not about what the user does.
        warnings.simplefilter("default")
    # A job that a shell starts in the background ignores Ctrl-C, and so it stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def lost_output() -> OSError | None:
    """Returns why standard output could not be written, if it could not."""
    sys.stdout.flush()
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return getattr(file, "failure", None)


def leave(code: int) -> None:
    """Ends the process at once, without the shutdown that computing threads may not survive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Some libraries swallow the exception while they are imported: a second Ctrl-C always ends.
    signal.signal(number, lambda *_: os._exit(128 + number))
    raise KeyboardInterrupt

"""Refuses what the machine cannot hold, before anything large is made; keeps what is freed."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

from vae_jax.types import UserError

CONTROL_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Lets this process use the memory that it frees again, rather than give it to the kernel.

    XLA allocates what a step computes with anew in every call. glibc's malloc gives pieces of that
    size back when they are freed, and the kernel clears each page of the next ones: a quarter to a
    third of the time of a call that takes one training step. With another C library than glibc
    this does nothing.

    To be called before other threads begin. Of large pieces, those that a thread with a heap of its
    own asks for are still given back.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)  # large pieces come from the first heap, too,
    mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks
    # and which more threads share the fewer heaps there are. With a single one, those of XLA's
    # compiler would wait for each other a quarter of their time.
    mallopt(M_ARENA_MAX, max(2, os.cpu_count() or 1))


def machine_bytes() -> int:
    """Returns the bytes that this process may hold: of the machine, a container or `ulimit -v`."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    for path in CONTROL_GROUP_LIMITS:
        text = path.read_text("utf-8").strip() if path.is_file() else ""
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raises a UserError if something needs more memory than the machine has.

    Args:
        needed: The bytes it needs at least.
        what: Its name in the error, such as "1,000 latent points of 64 dimensions".
        remedy: What the user can do.
    """
    there = machine_bytes()
    if needed > there:
        raise UserError(
            f"{what} would need {written(needed)} of memory, but this machine has "
            f"{written(there)}; {remedy}"
        )


def written(count: float) -> str:
    """Returns a number of bytes in words, such as 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:,.3g} {unit}" if count < 1e6 else f"{count:,.0f} {unit}"
        count /= 1024
    raise AssertionError

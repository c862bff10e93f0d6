"""Refuses what the machine cannot hold, before anything large is made."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from vae_jax.types import UserError

CONTROL_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


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

"""What the machine can do at best: matrix products and copies, measured with JAX."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.streams import make_key
from vae_jax.throughput.side import print_result

TRIALS = 3
SECONDS_A_TRIAL = 0.15


def machine_in_words() -> str:
    """Processor, cores that may be used, memory and accelerator."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{model}, {threads()} cores, {memory:.0f} GiB"
    if jax.default_backend() != "cpu":
        words += f"; {jax.device_count()} x {jax.devices()[0].device_kind}"
    return words


def threads() -> int:
    """Cores that this process may use; every side takes one thread for each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def matmul_peak(dtype: str, size: int) -> float:
    """Operations per second of a `size` x `size` matrix product in JAX's default precision."""
    keys = jax.random.split(make_key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / _best_seconds(lambda: product(a, b))


def copy_bandwidth(size: int) -> float:
    """Bytes read and written per second by `x + 1` on `size` bytes of float32."""
    x = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * size / _best_seconds(lambda: add(x))


def _best_seconds(function: Callable[[], jax.Array]) -> float:
    """Seconds a call; the best of some trials of many calls each."""
    function().block_until_ready()
    began = time.monotonic()
    function().block_until_ready()
    calls = max(1, int(SECONDS_A_TRIAL / max(time.monotonic() - began, 1e-6)))
    seconds = []
    for _ in range(TRIALS):
        began = time.monotonic()
        for _ in range(calls - 1):
            function()
        function().block_until_ready()
        seconds.append((time.monotonic() - began) / calls)
    return min(seconds)


def measure_machine() -> dict[str, Any]:
    """The machine in words, its peaks in operations and bytes per second, and how busy it was."""
    load = os.getloadavg()[0]
    accelerated = jax.default_backend() != "cpu"
    size = 8192 if accelerated else 2048
    peaks = {"float32": matmul_peak("float32", size)}
    if accelerated:
        peaks["bfloat16"] = matmul_peak("bfloat16", size)
    return {
        "words": machine_in_words(),
        "backend": jax.default_backend(),
        "threads": threads(),
        "load_before": load,
        "matmul_flop_per_second": peaks,
        "copy_bytes_per_second": copy_bandwidth(2**30 if accelerated else 2**28),
    }


if __name__ == "__main__":
    print_result(measure_machine())

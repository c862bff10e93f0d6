"""Describes the machine, and measures its matrix products and copies with JAX."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.speed.side import Call, Result
from vae_jax.data.workers import available_cores
from vae_jax.memory import machine_bytes
from vae_jax.streams import make_key

TRIALS = 3
SECONDS_A_TRIAL = 0.15
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine_in_words() -> str:
    """Returns processor, instruction set, usable cores, their caches, memory and accelerator."""
    cpu = _cpu_information()
    vectors = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "asimd": "NEON"}
    found = [word for flag, word in vectors.items() if flag in cpu.get("flags", "").split()]
    words = [
        cpu.get("model name") or platform.processor() or platform.machine(),
        found[0] if found else "instruction set unknown",
        f"{available_cores()} cores",
        f"L2 {_size_in_words(cache_bytes(2))} per core",
        f"L3 {_size_in_words(cache_bytes(3))}",
        f"{machine_bytes() / 2**30:.0f} GiB",
    ]
    if jax.default_backend() != "cpu":
        words.append(f"{jax.device_count()} x {jax.devices()[0].device_kind}")
    return ", ".join(words)


def _cpu_information() -> dict[str, str]:
    """Returns the facts that Linux gives of the first processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").split("\n\n")[0].splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines)
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    return facts | {"flags": facts.get("flags") or facts.get("Features", "")}


def cache_bytes(level: int) -> int | None:
    """Returns the size of the first processor's cache of a level, or None where it is unknown."""
    for index in sorted(CACHES.glob("index*")):
        try:
            facts = {
                name: (index / name).read_text("utf-8").strip()
                for name in ("level", "type", "size")
            }
            if facts["level"] == str(level) and facts["type"] in ("Data", "Unified"):
                return int(facts["size"].removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return None


def _size_in_words(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**20:g} MiB"


def matmul_peak(dtype: str, size: int) -> float:
    """Returns operations per second of a `size` x `size` product in JAX's default precision."""
    keys = jax.random.split(make_key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / _best_seconds(lambda: product(a, b))


def copy_bandwidth(size: int) -> float:
    """Returns bytes read and written per second by `x + 1` on `size` bytes of float32."""
    x = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * size / _best_seconds(lambda: add(x))


def _best_seconds(function: Callable[[], jax.Array]) -> float:
    """Returns the seconds of a call, in the best of some trials of many calls each."""
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


def run(call: Call) -> Result:
    """Returns the machine in words, its peaks in operations and bytes per second, and its load."""
    del call
    load = os.getloadavg()[0]
    accelerated = jax.default_backend() != "cpu"
    size = 8192 if accelerated else 2048
    peaks = {"float32": matmul_peak("float32", size)}
    if accelerated:
        peaks["bfloat16"] = matmul_peak("bfloat16", size)
    return {
        "words": machine_in_words(),
        "backend": jax.default_backend(),
        "threads": available_cores(),  # every side takes one thread for each
        "load_before": load,
        "matmul_flop_per_second": peaks,
        "copy_bytes_per_second": copy_bandwidth(2**30 if accelerated else 2**28),
    }

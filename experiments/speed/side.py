"""One side of a comparison: what its folder says to compute, and how its speed is measured.

Every side imports this in its own environment, so that nothing but NumPy is needed here.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

RESULT = "RESULT "
TASK_FILE = "task.json"
WARM_UP_STEPS = 3

Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What all sides compute.

    Attributes:
        what: 'train' or 'decode'.
        seconds: How long to measure.
        batch_size: B, of training.
        image_shape: `(H, W, C)`.
        z_dim: Z.
        layers: The fields of `layers.Layer` for every layer of 'encoder' and 'decoder'.
        negative_slope: The slope of leaky_relu below 0.
        norm_epsilon: The epsilon of batch norm.
        norm_momentum: The decay of its running statistics.
        likelihood: 'bernoulli' or 'squared_error'.
        scales: `(r, k)` of `loss = r R + k K`, with R and K in nats per image.
        adam: `(learning rate, b1, b2, epsilon)`.
        dtype: The type of the computation, 'float32' or 'bfloat16'.
        config: The whole config as JSON text.
    """

    what: str
    seconds: float
    batch_size: int
    image_shape: tuple[int, int, int]
    z_dim: int
    layers: dict[str, list[dict[str, Any]]]
    negative_slope: float
    norm_epsilon: float
    norm_momentum: float
    likelihood: str
    scales: tuple[float, float]
    adam: tuple[float, float, float, float]
    dtype: str
    config: str

    def save(self, folder: Path) -> None:
        """Writes the task where `TaskFolder` finds it."""
        (folder / TASK_FILE).write_text(json.dumps(asdict(self)), "utf-8")


class TaskFolder:
    """A task and the arrays that go with it.

    Attributes:
        path: The folder.
        task: The task.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.task = Task(**json.loads((self.path / TASK_FILE).read_bytes()))

    def images(self) -> np.ndarray:
        """Returns the data, `[N, H, W, C]` uint8."""
        return np.load(self.path / "images.npy")

    def latents(self) -> np.ndarray:
        """Returns the points to decode, `[N, Z]` float32."""
        return np.load(self.path / "latents.npy")

    def check_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images `[B, H, W, C]` uint8 and noise `[B, Z]` of the check."""
        images = np.load(self.path / "images.npy", mmap_mode="r")
        return np.asarray(images[: self.task.batch_size]), np.load(self.path / "noise.npy")

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the initial parameters by path, such as 'encoder/conv_0/kernel'."""
        with np.load(self.path / "weights.npz") as arrays:
            return dict(arrays)

    def save_check(self, weights: Mapping[str, np.ndarray], noise: np.ndarray) -> None:
        """Writes what the other sides need for the check."""
        np.savez(self.path / "weights.npz", allow_pickle=False, **weights)
        np.save(self.path / "noise.npy", noise)


@dataclass(frozen=True)
class Call:
    """The arguments of the process of a side.

    Attributes:
        folder: The folder of the task.
        action: 'check' or 'time'.
        started: When the process was started, in seconds as of `time.time`.
        variant: The variant of its `Program`.
    """

    folder: Path
    action: str
    started: float
    variant: str

    def since_start(self) -> float:
        """Returns the seconds since the process was started, imports included."""
        return time.time() - self.started


class Side(Protocol):
    """An implementation of the task. Making one does not compute anything yet."""

    def check(self) -> dict[str, float]:
        """Returns the numbers that all sides must agree on, for equal weights, batch and noise."""
        ...

    def step(self) -> int:
        """Starts a piece of the work, which may still run on return; returns its images."""
        ...

    def synchronize(self) -> None:
        """Waits until all steps are done."""
        ...


def shuffled_batches(count: int, batch_size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields whole batches `[B]` of indices below `count`, every epoch in a new order."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def measure(side: Side, seconds: float) -> float:
    """Measures images per second over about `seconds`, after a warm-up of a quarter of that."""
    images = steps = 0
    began = time.monotonic()
    while steps < WARM_UP_STEPS or time.monotonic() - began < seconds / 4:
        images += side.step()
        side.synchronize()
        steps += 1
    target = seconds * images / (time.monotonic() - began)
    images, began = 0, time.monotonic()
    while images < target:
        images += side.step()
    side.synchronize()
    return images / (time.monotonic() - began)


def peak_memory_mib() -> float:
    """Returns the largest resident memory of this process up to now, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run_side(call: Call, side: Side) -> Result:
    """Checks or times a side, as the call says.

    Returns:
        The numbers to agree on; or, of a timing, `images_per_second`, `first_step_seconds` from
        the start of the process, and `peak_memory_mib`.
    """
    if call.action == "check":
        return side.check()
    side.step()
    side.synchronize()
    first_step = call.since_start()
    return {
        "images_per_second": measure(side, TaskFolder(call.folder).task.seconds),
        "first_step_seconds": first_step,
        "peak_memory_mib": peak_memory_mib(),
    }

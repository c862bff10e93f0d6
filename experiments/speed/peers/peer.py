"""What a library has to implement to be a side of a comparison, and the rest of that side.

Peers import this in their own environments, so that nothing but NumPy is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from experiments.speed.side import Call, Result, Task, TaskFolder, run_side

DECODING_BATCH = 256


class Peer(Protocol):
    """The model of a task in one library, which trains or decodes as `task.what` says."""

    def load(self, images: np.ndarray) -> None:
        """Prepares training on `[N, H, W, C]` uint8, put where this library wants them."""
        ...

    def take(self, network: str, layer: dict[str, Any], name: str, value: np.ndarray) -> None:
        """Replaces a parameter by ours.

        Args:
            network: 'encoder' or 'decoder'.
            layer: Its layer, an entry of `task.layers[network]`.
            name: 'kernel', 'bias', 'norm/scale' or 'norm/bias'.
            value: The array; kernels are `[k, k, in, out]` or `[in, out]`.
        """
        ...

    def loss_and_gradient_norm(self, images: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        """Returns them for a step on `[B, H, W, C]` uint8 and `[B, Z]`, without taking it."""
        ...

    def train_step(self) -> int:
        """Starts the next training step; returns the number of its images."""
        ...

    def synchronize(self) -> None:
        """Waits until the last training step is done."""
        ...

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decodes points `[B, Z]` to images `[B, H, W, C]` in [0, 1], on the host."""
        ...


class PeerSide:
    """A `side.Side`: a peer with the folder's data, weights and task."""

    def __init__(self, folder: TaskFolder, peer: Peer) -> None:
        self._folder, self._peer = folder, peer
        self._trains = folder.task.what == "train"
        if self._trains:
            peer.load(folder.images())
        else:
            self._latents = folder.latents()

    def check(self) -> dict[str, float]:
        """Returns loss and gradient norm, or the deviation of decoded pixels, with our weights."""
        layers = self._folder.task.layers
        for path, value in self._folder.weights().items():
            network, layer_name, name = path.split("/", 2)
            (layer,) = (layer for layer in layers[network] if layer["name"] == layer_name)
            self._peer.take(network, layer, name, value)
        if not self._trains:
            return {"pixel_std": float(np.concatenate(list(self._decoded())).std())}
        loss, norm = self._peer.loss_and_gradient_norm(*self._folder.check_batch())
        return {"loss": loss, "grad_norm": norm}

    def step(self) -> int:
        """Takes a training step, or decodes all latent points."""
        return self._peer.train_step() if self._trains else sum(map(len, self._decoded()))

    def synchronize(self) -> None:
        """Waits for the last step; decoded images are on the host already."""
        if self._trains:
            self._peer.synchronize()

    def _decoded(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._latents), DECODING_BATCH):
            yield self._peer.decode(self._latents[start : start + DECODING_BATCH])


def run_peer(call: Call, make: Callable[[Task, str], Peer]) -> Result:
    """Checks or times a peer, as the call says.

    Args:
        call: The call of the side.
        make: Makes the peer from the task and the variant.

    Returns:
        The result of `side.run_side`.
    """
    folder = TaskFolder(call.folder)
    return run_side(call, PeerSide(folder, make(folder.task, call.variant)))

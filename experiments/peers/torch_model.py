"""The VAE as PyTorch modules, on mirrored images.

'same' pads (0, 1) in front and behind in TensorFlow and here, while PyTorch's `padding=1` with
stride 2 sees (1, 0). Both are mirror images of each other, so these layers work on mirrored images
with mirrored kernels: the same function, without a copy for padding.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from vae_jax.throughput.side import Task


def convolution(layer: dict[str, Any]) -> nn.Module:
    """The layer on mirrored images; padding in front is TensorFlow's padding behind."""
    kernel, stride = layer["kernel"], layer["stride"]
    wide, narrow = layer["inputs"], layer["outputs"]
    if layer["kind"] == "conv_transpose":
        wide, narrow = narrow, wide
    paddings, extra = set(), set()
    for large, small in zip(wide[:2], narrow[:2], strict=True):
        total = (small - 1) * stride + kernel - large
        front = total - (max(total, 0) // 2 if layer["padding"] == "same" else 0)
        paddings.add(front)
        extra.add(large - ((small - 1) * stride - 2 * front + kernel))
    padding, output_padding = paddings.pop(), extra.pop()
    if paddings or extra or padding < 0 or not 0 <= output_padding < stride:
        raise ValueError(f"the PyTorch peer has no form of kernel {kernel}, {stride=}")
    channels = (layer["inputs"][-1], layer["outputs"][-1])
    if layer["kind"] == "conv":
        return nn.Conv2d(*channels, kernel, stride, padding, bias=layer["bias"])
    return nn.ConvTranspose2d(
        *channels, kernel, stride, padding, output_padding, bias=layer["bias"]
    )


def mirrored(shape: Sequence[int]) -> np.ndarray:
    """Where the features of a mirrored `[H, W, C]` are in the image; a `[F]` stays as it is."""
    order = np.arange(math.prod(shape)).reshape(shape)
    return (order[::-1, ::-1] if len(shape) == 3 else order).ravel()


class Layer(nn.Module):
    """One layer with norm and activation."""

    def __init__(self, task: Task, layer: dict[str, Any]) -> None:
        super().__init__()
        self.inputs, self.outputs = layer["inputs"], layer["outputs"]
        self.dense = layer["kind"] == "dense"
        if self.dense:
            self.weighted = nn.Linear(math.prod(self.inputs), math.prod(self.outputs))
        else:
            self.weighted = convolution(layer)
        momentum, channels = 1 - task.norm_momentum, self.outputs[-1]
        self.norm = nn.BatchNorm2d(channels, task.norm_epsilon, momentum) if layer["norm"] else None
        self.activation = {
            "leaky_relu": nn.LeakyReLU(task.negative_slope, inplace=True),
            "relu": nn.ReLU(inplace=True),
            "selu": nn.SELU(inplace=True),
            "none": nn.Identity(),
        }[layer["activation"]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C, H, W]` or `[B, F]`, as the layer takes and gives."""
        if self.dense and x.ndim == 4:
            x = x.permute(0, 2, 3, 1).flatten(1)  # A view of channels_last.
        x = self.weighted(x)
        if self.dense and len(self.outputs) == 3:
            x = x.view(len(x), *self.outputs).permute(0, 3, 1, 2)
        return self.activation(x if self.norm is None else self.norm(x))

    def take(self, name: str, value: np.ndarray) -> None:
        """Take over our parameter, such as 'kernel' or 'norm/scale', for mirrored images."""
        if self.dense:
            value = value[..., mirrored(self.outputs)]
            value = value[mirrored(self.inputs)].T if name == "kernel" else value
        elif name == "kernel":
            value = value[::-1, ::-1].transpose(3, 2, 0, 1)  # From [k, k, in, out] or [.., out, in]
        owner = self.norm if name.startswith("norm/") else self.weighted
        target = owner.bias if name.endswith("bias") else owner.weight
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.ascontiguousarray(value)))


class VAE(nn.Module):
    """Encoder and decoder."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            nn.Sequential(OrderedDict((layer["name"], Layer(task, layer)) for layer in layers))
            for layers in (task.layers["encoder"], task.layers["decoder"])
        )

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.decoder(z).float()

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, mean and log_var."""
        *features, mean, log_var = self.encoder
        for layer in features:
            x = layer(x)
        mean, log_var = mean(x).float(), log_var(x).float()
        return self.decode(mean + torch.exp(0.5 * log_var) * noise), mean, log_var

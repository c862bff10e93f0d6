"""PyTorch, eager or compiled: channels_last, fused Adam, the data on the device.

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
from torch.nn import functional as F

from experiments.speed.peers.peer import run_peer
from experiments.speed.side import Call, Result, Task, shuffled_batches

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def convolution(layer: dict[str, Any]) -> nn.Module:
    """Applies the layer to mirrored images; padding in front is TensorFlow's padding behind."""
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
    """Returns where the features of a mirrored `[H, W, C]` are in the image; a `[F]` stays."""
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
        """Returns `[B, C, H, W]` or `[B, F]`, as the layer takes and gives."""
        if self.dense and x.ndim == 4:
            x = x.permute(0, 2, 3, 1).flatten(1)  # A view of channels_last.
        x = self.weighted(x)
        if self.dense and len(self.outputs) == 3:
            x = x.view(len(x), *self.outputs).permute(0, 3, 1, 2)
        return self.activation(x if self.norm is None else self.norm(x))

    def take(self, name: str, value: np.ndarray) -> None:
        """Takes over our parameter, such as 'kernel' or 'norm/scale', for mirrored images."""
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


class TorchPeer:
    """The model with its optimizer; 'compile' compiles the loss and `decode`, 'eager' nothing."""

    def __init__(self, task: Task, variant: str) -> None:
        self._task = task
        torch.manual_seed(0)
        self._model = VAE(task).to(DEVICE, memory_format=torch.channels_last)
        self._model.train(task.what == "train")
        learning_rate, b1, b2, epsilon = task.adam
        parameters = self._model.parameters()
        self._adam = torch.optim.Adam(parameters, learning_rate, (b1, b2), epsilon, fused=True)
        compiled = torch.compile if variant == "compile" else lambda function: function
        self._loss_fn, self._decode = compiled(self._loss), compiled(self._decoded)

    def load(self, images: np.ndarray) -> None:
        """Puts everything on the device."""
        self._images = torch.from_numpy(images).to(DEVICE)
        self._batches = shuffled_batches(len(images), self._task.batch_size)

    def take(self, network: str, layer: dict[str, Any], name: str, value: np.ndarray) -> None:
        """Mirrors and transposes."""
        self._model.get_submodule(f"{network}.{layer['name']}").take(name, value)

    def loss_and_gradient_norm(self, images: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        """Takes the loss of the training step, not compiled."""
        images, noise = (torch.from_numpy(array).to(DEVICE) for array in (images, noise))
        loss = self._loss(images.flip(1, 2), noise)
        grads = torch.autograd.grad(loss, list(self._model.parameters()))
        squares = [(grad.double() ** 2).sum() for grad in grads]
        return loss.item(), torch.stack(squares).sum().sqrt().item()

    def train_step(self) -> int:
        """Loss, gradients, update."""
        rows = torch.from_numpy(next(self._batches)).to(DEVICE)
        noise = torch.randn(len(rows), self._task.z_dim, device=DEVICE)
        self._adam.zero_grad()
        self._loss_fn(self._images[rows], noise).backward()
        self._adam.step()
        return len(rows)

    def synchronize(self) -> None:
        """Waits for the device."""
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decodes the points in one call."""
        return self._decode(torch.from_numpy(z).to(DEVICE)).permute(0, 2, 3, 1).cpu().numpy()

    def _loss(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        task = self._task
        targets = images.permute(0, 3, 1, 2).float() / 255.0
        with torch.autocast(DEVICE, torch.bfloat16, enabled=task.dtype == "bfloat16"):
            logits, mean, log_var = self._model(targets, noise)
        if task.likelihood == "bernoulli":
            recon = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        else:
            recon = F.mse_loss(torch.sigmoid(logits), targets, reduction="sum")
        kl = 0.5 * torch.sum(mean**2 + torch.exp(log_var) - 1 - log_var)
        return (task.scales[0] * recon + task.scales[1] * kl) / len(images)

    def _decoded(self, z: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self._task.dtype == "bfloat16"):
            logits = self._model.decode(z)
        return torch.sigmoid(logits)


def run(call: Call) -> Result:
    """Measures PyTorch, variant 'eager' or 'compile'."""
    return run_peer(call, TorchPeer)

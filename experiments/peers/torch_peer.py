"""PyTorch, eager or compiled: channels_last, fused Adam, the data on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from experiments.peers import peer
from experiments.peers.torch_model import VAE
from vae_jax.throughput.side import Task, shuffled_batches

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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
        """All on the device."""
        self._images = torch.from_numpy(images).to(DEVICE)
        self._batches = shuffled_batches(len(images), self._task.batch_size)

    def take(self, network: str, layer: dict[str, Any], name: str, value: np.ndarray) -> None:
        """Mirrored and transposed."""
        self._model.get_submodule(f"{network}.{layer['name']}").take(name, value)

    def loss_and_gradient_norm(self, images: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        """By the loss of the training step, not compiled."""
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
        """Wait for the device."""
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def decode(self, z: np.ndarray) -> np.ndarray:
        """One call for the points."""
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


if __name__ == "__main__":
    peer.main(TorchPeer)

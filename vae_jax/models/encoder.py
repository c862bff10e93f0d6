"""The encoder: images `[B, H, W, C]` to mean and log_var `[B, Z]` of their posteriors."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.blocks import BlockStyle, Stack, conv_layers, told_dense
from vae_jax.models.convolution import conv_output_size

LOG_VAR_LINEAR = 20.0
LOG_VAR_MARGIN = 10.0


def soft_limit(log_var: jax.Array) -> jax.Array:
    """Returns values within +-20 as they are, and others bent smoothly to within +-30.

    exp overflows float32 at 88.7; unlike a hard clip this keeps a gradient that leads back.
    """
    beyond = jnp.abs(log_var) - LOG_VAR_LINEAR
    limited = LOG_VAR_LINEAR + LOG_VAR_MARGIN * jnp.tanh(beyond / LOG_VAR_MARGIN)
    return jnp.where(beyond > 0, jnp.sign(log_var) * limited, log_var)


def feature_shape(stack: Stack, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns `(h, w, f)` of the last feature map for images `(H, W, C)`."""
    height, width, channels = image_shape
    for filters, kernel, stride, padding in zip(
        stack.filters, stack.kernel_sizes, stack.strides, stack.padding, strict=True
    ):
        height = conv_output_size(height, kernel, stride, padding)
        width = conv_output_size(width, kernel, stride, padding)
        channels = filters
    return height, width, channels


class Encoder(nn.Module):
    """Applies convolutions, then one dense layer for mean and one for log_var.

    Attributes:
        z_dim: Z.
        stack: The layers, named `conv_0`, `conv_1`, ...
        style: What they share.
        remat: Whether to recompute activations in the backward pass instead of keeping them.
    """

    z_dim: int
    stack: Stack
    style: BlockStyle
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool,
        labels: jax.Array | None = None,
        mask: jax.Array | None = None,
        code: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes images; nothing is sampled here.

        Args:
            images: `[B, H, W, C]` in [0, 1].
            train: Whether to use batch statistics and dropout (stream `dropout`).
            labels: `[B, L]`, which are appended to the features before mean and log_var, or None.
            mask: `[B]` bool, the images that count for the batch statistics; None for all.
            code: `[B, T]`, what the model is told, or None.

        Returns:
            Mean and log_var, `[B, Z]` each, at least float32.
        """
        stack = self.stack
        x = conv_layers(stack, self.style, images, train, mask, code, remat=self.remat)
        x = x.reshape(x.shape[0], -1)  # len() would refuse the symbolic size of an export
        for i, width in enumerate(stack.dense):
            x = self.style.activate(told_dense(x, width, self.style, f"dense_{i}", code))
        if labels is not None:
            x = jnp.concatenate([x, labels.astype(x.dtype)], axis=-1)
        mean = told_dense(x, self.z_dim, self.style, "mean", code)
        log_var = told_dense(x, self.z_dim, self.style, "log_var", code)
        at_least_float32 = jnp.promote_types(mean.dtype, jnp.float32)
        return mean.astype(at_least_float32), soft_limit(log_var.astype(at_least_float32))

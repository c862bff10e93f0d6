"""The decoder: latent points `[B, Z]` to logits `[B, H, W, C]`."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.blocks import BlockStyle, ConvBlock, Stack, told_dense
from vae_jax.models.convolution import conv_transpose_output_size
from vae_jax.types import UserError


def check_output_shape(
    stack: Stack, start_shape: tuple[int, int, int], image_shape: tuple[int, int, int]
) -> None:
    """Raises UserError unless the decoder's layers lead from `start_shape` to `image_shape`."""
    sizes = [start_shape[:2]]
    for kernel, stride, padding in zip(
        stack.kernel_sizes, stack.strides, stack.padding, strict=True
    ):
        height, width = sizes[-1]
        sizes.append(
            (
                conv_transpose_output_size(height, kernel, stride, padding),
                conv_transpose_output_size(width, kernel, stride, padding),
            )
        )
    if sizes[-1] != tuple(image_shape[:2]):
        way = " -> ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(
            f"config.model.decoder: kernel_sizes {stack.kernel_sizes} and strides {stack.strides} "
            f"lead from the encoder's features to {way}, but the images are "
            f"{image_shape[0]}x{image_shape[1]}; choose strides whose product divides the image "
            "size, the same in encoder and decoder"
        )


class Decoder(nn.Module):
    """Applies a dense layer without norm, then transposed convolutions, the last one for logits.

    Attributes:
        start_shape: `(h, w, f)`, to which the output of the dense layer is reshaped.
        channels: C of the images.
        stack: The layers, named `conv_0`, `conv_1`, ...
        style: What they share.
        dense_activation: The activation of the dense layer, 'none' in the reference.
        remat: Whether to recompute activations in the backward pass instead of keeping them.
    """

    start_shape: tuple[int, int, int]
    channels: int
    stack: Stack
    style: BlockStyle
    dense_activation: str = "none"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        train: bool,
        labels: jax.Array | None = None,
        mask: jax.Array | None = None,
        code: jax.Array | None = None,
    ) -> jax.Array:
        """Decodes latent points.

        Args:
            z: `[B, Z]`.
            train: Whether to use batch statistics and dropout (stream `dropout`).
            labels: `[B, L]`, which are appended to z, or None.
            mask: `[B]` bool, the images that count for the batch statistics; None for all.
            code: `[B, T]`, what the model is told, or None.

        Returns:
            Logits `[B, H, W, C]`, at least float32.
        """
        stack = self.stack
        block = nn.remat(ConvBlock, static_argnums=(2,)) if self.remat else ConvBlock
        x = z if labels is None else jnp.concatenate([z, labels.astype(z.dtype)], axis=-1)
        x = told_dense(x, math.prod(self.start_shape), self.style, "dense", code)
        x = self.style.activate(x, self.dense_activation)
        x = x.reshape(x.shape[0], *self.start_shape)
        widths = (*stack.filters, self.channels)
        for i, filters in enumerate(widths):
            layer = block(
                filters,
                stack.kernel_sizes[i],
                stack.strides[i],
                stack.padding[i],
                self.style,
                transpose=True,
                plain=i == len(widths) - 1,
                name=f"conv_{i}",
            )
            x = layer(x, train, mask, code)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

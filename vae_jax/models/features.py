"""The convolutional layers that encoder and classifier share, and their feature maps by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.blocks import BlockStyle, ConvBlock, Stack
from vae_jax.types import UserError


def layer_names(stack: Stack) -> tuple[str, ...]:
    """`conv_0`, `conv_1`, ...: the names of the convolutional layers."""
    return tuple(f"conv_{i}" for i in range(len(stack.filters)))


def conv_layers(
    stack: Stack,
    style: BlockStyle,
    images: jax.Array,
    train: bool,
    mask: jax.Array | None = None,
    *,
    depth: int | None = None,
    remat: bool = False,
    image_gradient: bool = False,
) -> jax.Array:
    """Apply the first layers within the module that calls this, which owns their parameters.

    Args:
        stack: the layers.
        style: what they share.
        images: `[B, H, W, C]` in [0, 1].
        train: use batch statistics and dropout.
        mask: `[B]` bool, images that count for the batch statistics.
        depth: how many layers; None for all.
        remat: recompute activations in the backward pass instead of keeping them.
        image_gradient: whether the gradient with respect to the images is needed.

    Returns:
        Activated output `[B, h, w, f]` of the last of these layers.
    """
    block = nn.remat(ConvBlock, static_argnums=(2,)) if remat else ConvBlock
    x = images
    for i, name in enumerate(layer_names(stack)[:depth]):
        layer = block(
            stack.filters[i],
            stack.kernel_sizes[i],
            stack.strides[i],
            stack.padding[i],
            style,
            first=i == 0 and not image_gradient,
            name=name,
        )
        x = layer(x, train, mask)
    return x


class Features(nn.Module):
    """A network up to one layer: it takes the network's own variables and ignores the rest.

    Attributes:
        stack: all convolutional layers of the network.
        style: what they share.
        depth: how many of them to apply.
    """

    stack: Stack
    style: BlockStyle
    depth: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """`[B, H, W, C]` in [0, 1] to feature maps `[B, h, w, f]`, at least float32.

        Unlike the networks themselves it is differentiable with respect to the images.
        """
        x = conv_layers(
            self.stack, self.style, images, False, depth=self.depth, image_gradient=True
        )
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def layer_features(
    stack: Stack, style: BlockStyle, variables: Mapping[str, Any], layer: str
) -> jax.tree_util.Partial:
    """The feature maps of a layer as a function of images; only layers up to it are computed.

    Args:
        stack: all convolutional layers of the network.
        style: what they share.
        variables: `params` and `batch_stats` of the network.
        layer: `conv_0`, `conv_1`, ...

    Returns:
        Function from `[B, H, W, C]` in [0, 1] to the activated output `[B, h, w, f]`. It is a
        tree of arrays, so that it can be handed to a jitted function.

    Raises:
        UserError: there is no such layer; the sentence lists the valid ones.
    """
    names = layer_names(stack)
    if layer not in names:
        raise UserError(f"{layer!r} is not a layer of this network; valid are {', '.join(names)}")
    features = Features(stack, style, names.index(layer) + 1)
    return jax.tree_util.Partial(features.apply, dict(variables))

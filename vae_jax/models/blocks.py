"""The layers of the networks: one (transposed) convolution with norm, activation and dropout, a
stack of them as encoder and classifier share it, and the feature maps of a layer by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vae_jax.devices import on_own_images
from vae_jax.models.convolution import Padding, conv, conv_transpose
from vae_jax.models.norm import BatchNorm
from vae_jax.types import UserError

ACTIVATIONS = ("leaky_relu", "relu", "selu", "tanh", "none")
NORMS = ("batch", "none")
# Scale, fan and distribution of Glorot & Bengio 2010, He et al. 2015, LeCun et al. 1998.
_Fan = Literal["fan_in", "fan_avg"]
_Law = Literal["uniform", "truncated_normal"]
KERNEL_INITS: dict[str, tuple[float, _Fan, _Law]] = {
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "he_normal": (2.0, "fan_in", "truncated_normal"),
    "lecun_normal": (1.0, "fan_in", "truncated_normal"),
}
DTYPES = ("float32", "bfloat16")

# The saturation value of SELU that alpha dropout sets dropped units to: -scale * alpha.
SELU_SATURATION = -1.0507009873554805 * 1.6732632423543772


@dataclass(frozen=True)
class Stack:
    """The layers of one network, first to last.

    Attributes:
        filters: The output channels of the layers; for a decoder without the last layer, which has
            the image's channels.
        kernel_sizes: One for every layer.
        strides: One for every layer.
        padding: 'same' or 'valid', one for every layer.
        dense: The widths of the dense layers between the features and mean / log_var.
    """

    filters: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[Padding, ...]
    dense: tuple[int, ...] = ()


@dataclass(frozen=True)
class BlockStyle:
    """What all layers of a network share.

    Attributes:
        activation: One of `ACTIVATIONS`.
        negative_slope: The slope of leaky_relu below 0.
        norm: One of `NORMS`.
        norm_epsilon: What is added to the variance.
        norm_momentum: The decay of the running statistics.
        dropout: The rate after the activation; selu uses alpha dropout.
        kernel_init: One of `KERNEL_INITS`.
        conv_bias: Whether a convolution in front of a norm has a bias (its true gradient is 0).
        dtype: The type of the computation; parameters, statistics and losses stay float32.
        convolution: The implementation, see `vae_jax.models.convolution`.
    """

    activation: str = "leaky_relu"
    negative_slope: float = 0.3
    norm: str = "batch"
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    dropout: float = 0.0
    kernel_init: str = "glorot_uniform"
    conv_bias: bool = True
    dtype: str = "float32"
    convolution: str = "auto"

    @property
    def compute_dtype(self) -> jnp.dtype | None:
        """Returns bfloat16, or None to compute in the type of the inputs."""
        return jnp.dtype(jnp.bfloat16) if self.dtype == "bfloat16" else None

    def initializer(self, in_axis: int = -2, out_axis: int = -1) -> nn.initializers.Initializer:
        """Returns an initializer of kernels with these axes of input and output features."""
        scale, mode, distribution = KERNEL_INITS[self.kernel_init]
        return nn.initializers.variance_scaling(scale, mode, distribution, in_axis, out_axis)

    def activate(self, x: jax.Array, activation: str | None = None) -> jax.Array:
        """Applies the style's activation, or the one named."""
        functions: dict[str, Callable[[jax.Array], jax.Array]] = {
            "leaky_relu": lambda v: jax.nn.leaky_relu(v, self.negative_slope),
            "relu": jax.nn.relu,
            "selu": jax.nn.selu,
            "tanh": jnp.tanh,
            "none": lambda v: v,
        }
        return functions[activation or self.activation](x)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014); its draws are float32 whatever JAX's settings are.

    Attributes:
        rate: The probability that a unit is dropped.
        alpha: Keep mean 0 and variance 1 of SELU units (alpha dropout, Klambauer et al. 2017).
    """

    rate: float
    alpha: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps `[..., F]` to `[..., F]`; needs the stream `dropout` unless deterministic."""
        if deterministic or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(keep), x.shape)
        if not self.alpha:
            return jnp.where(kept, x / keep, jnp.zeros_like(x))
        scale = (keep + SELU_SATURATION**2 * keep * self.rate) ** -0.5
        shift = -scale * self.rate * SELU_SATURATION
        return (scale * jnp.where(kept, x, SELU_SATURATION) + shift).astype(x.dtype)


def dense(features: int, style: BlockStyle, name: str) -> nn.Dense:
    """Returns a dense layer, `[B, F]` to `[B, features]`, in the style's type."""
    initializer = style.initializer()
    return nn.Dense(features, kernel_init=initializer, dtype=style.compute_dtype, name=name)


def gate_and_shift(code: jax.Array, features: int, prefix: str) -> tuple[jax.Array, jax.Array]:
    """Returns what becomes of a pre-activation a, `a * 2 sigmoid(W c + b) + V c`: a at the start.

    Args:
        code: c, `[B, T]`: what the model is told, see `vae_jax.models.told`.
        features: The channels of the layer.
        prefix: What the names of the parameters begin with.

    Returns:
        Factors and shifts, `[B, features]` each.
    """
    zeros = nn.initializers.zeros
    gate = nn.Dense(features, kernel_init=zeros, name=f"{prefix}gate")(code)
    shift = nn.Dense(features, kernel_init=zeros, use_bias=False, name=f"{prefix}shift")(code)
    return 2 * jax.nn.sigmoid(gate), shift


def told_dense(
    x: jax.Array, features: int, style: BlockStyle, name: str, code: jax.Array | None
) -> jax.Array:
    """Applies a dense layer `[B, F]` to `[B, features]` and what the model is told, if anything."""
    x = dense(features, style, name)(x)
    if code is None:
        return x
    factors, shifts = gate_and_shift(code, features, f"{name}_")
    return x * factors.astype(x.dtype) + shifts.astype(x.dtype)


class ConvBlock(nn.Module):
    """(Transposed) convolution -> norm -> activation -> dropout.

    Attributes:
        features: The number of output channels.
        kernel_size: The side of the square kernel.
        stride: The stride in both directions.
        padding: 'same' or 'valid', as TensorFlow pads.
        style: What all layers share.
        transpose: Whether this is the transposed convolution of a decoder, whose kernel is
            `[k, k, out, in]`.
        plain: Whether it is convolution and bias alone, as the last layer of a decoder.
        first: Whether the input is data, whose gradient nobody needs.
    """

    features: int
    kernel_size: int
    stride: int
    padding: str
    style: BlockStyle
    transpose: bool = False
    plain: bool = False
    first: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool,
        mask: jax.Array | None = None,
        code: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the layer.

        Args:
            x: `[B, H, W, C]`.
            train: Whether to use batch statistics and dropout (stream `dropout`).
            mask: `[B]` bool, the images that count for the batch statistics; None for all.
            code: `[B, T]`, what the model is told, or None.

        Returns:
            `[B, H', W', features]`.
        """
        x, bias = self._convolve(x)
        style = self.style
        if bias is not None and (self.plain or style.norm == "none"):
            x = x + bias[None, None, None, :]
        if self.plain:
            return x
        modulation = None if code is None else gate_and_shift(code, self.features, "")
        if style.norm == "batch":
            norm = BatchNorm(
                style.norm_momentum, style.norm_epsilon, style.compute_dtype, name="norm"
            )
            x = norm(x, train, mask, modulation, 0.0 if bias is None else bias)
        elif modulation is not None:
            factors, shifts = (values.astype(x.dtype)[:, None, None, :] for values in modulation)
            x = x * factors + shifts
        x = style.activate(x)
        dropout = Dropout(style.dropout, style.activation == "selu", name="dropout")
        return dropout(x, deterministic=not train)

    def _convolve(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Returns the convolution, and the bias `[features]` that is still to be added, if any."""
        style, size = self.style, (self.kernel_size, self.kernel_size)
        if self.transpose:
            shape = (*size, self.features, x.shape[-1])
            initializer = style.initializer(in_axis=-1, out_axis=-2)
        else:
            shape = (*size, x.shape[-1], self.features)
            initializer = style.initializer()
        kernel = self.param("kernel", initializer, shape, jnp.float32)
        bias = None
        if self.plain or style.conv_bias or style.norm == "none":
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=style.compute_dtype)
        settings = {
            "strides": (self.stride, self.stride),
            "padding": self.padding,
            "implementation": style.convolution,
        }
        if self.transpose:
            convolve = partial(conv_transpose, **settings)
        else:
            convolve = partial(conv, input_gradient=not self.first, **settings)
        return on_own_images(convolve)(x, kernel), bias


def layer_names(stack: Stack) -> tuple[str, ...]:
    """Returns `conv_0`, `conv_1`, ...: the names of the convolutional layers."""
    return tuple(f"conv_{i}" for i in range(len(stack.filters)))


def conv_layers(
    stack: Stack,
    style: BlockStyle,
    images: jax.Array,
    train: bool,
    mask: jax.Array | None = None,
    code: jax.Array | None = None,
    *,
    depth: int | None = None,
    remat: bool = False,
    image_gradient: bool = False,
) -> jax.Array:
    """Applies the first layers of a stack; the module that calls this owns their parameters.

    Args:
        stack: The layers.
        style: What they share.
        images: `[B, H, W, C]` in [0, 1].
        train: Whether to use batch statistics and dropout (stream `dropout`).
        mask: `[B]` bool, the images that count for the batch statistics; None for all.
        code: `[B, T]`, what the model is told, or None.
        depth: The number of layers; None for all.
        remat: Whether to recompute activations in the backward pass instead of keeping them.
        image_gradient: Whether the gradient with respect to the images is needed.

    Returns:
        The activated output `[B, h, w, f]` of the last of these layers.
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
        x = layer(x, train, mask, code)
    return x


class Features(nn.Module):
    """A network up to one layer: it takes the network's own variables and ignores the rest.

    Attributes:
        stack: All convolutional layers of the network.
        style: What they share.
        depth: How many of them to apply.
    """

    stack: Stack
    style: BlockStyle
    depth: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` in [0, 1] to feature maps `[B, h, w, f]`, at least float32.

        Unlike the networks themselves it is differentiable with respect to the images.
        """
        x = conv_layers(
            self.stack, self.style, images, False, depth=self.depth, image_gradient=True
        )
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def layer_features(
    stack: Stack, style: BlockStyle, variables: Mapping[str, Any], layer: str
) -> jax.tree_util.Partial:
    """Returns a layer's feature maps as a function of images; later layers are not computed.

    Args:
        stack: All convolutional layers of the network.
        style: What they share.
        variables: `params` and `batch_stats` of the network.
        layer: `conv_0`, `conv_1`, ...

    Returns:
        A function from `[B, H, W, C]` in [0, 1] to the activated output `[B, h, w, f]`. It is a
        tree of arrays, so that it can be an argument of a jitted function.

    Raises:
        UserError: There is no such layer; the sentence lists the valid ones.
    """
    names = layer_names(stack)
    if layer not in names:
        raise UserError(f"{layer!r} is not a layer of this network; valid are {', '.join(names)}")
    return jax.tree_util.Partial(_features(stack, style, names.index(layer) + 1), dict(variables))


@lru_cache(maxsize=64)
def _features(stack: Stack, style: BlockStyle, count: int) -> Callable[..., Any]:
    """Returns the same function for equal networks, so that what was compiled for it is reused."""
    return Features(stack, style, count).apply

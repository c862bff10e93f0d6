"""A small convolutional classifier, which judges samples and whose filters can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.blocks import BlockStyle, Dropout, Stack, conv_layers, dense


class Classifier(nn.Module):
    """Maps images to one logit for each class or binary attribute, by convolutions.

    Attributes:
        image_shape: `(H, W, C)`.
        labels: L, the number of classes or of attributes.
        stack: The layers, named `conv_0`, `conv_1`, ... and `dense_0`, ...
        style: What the convolutional layers share.
        dropout: The rate after each dense layer.
    """

    image_shape: tuple[int, int, int]
    labels: int
    stack: Stack
    style: BlockStyle
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Classifies images.

        Args:
            images: `[B, H, W, C]` in [0, 1].
            train: Whether to use batch statistics and dropout (stream `dropout`).
            mask: `[B]` bool, the images that count for the batch statistics; None for all.

        Returns:
            Logits `[B, L]`, at least float32.
        """
        x = conv_layers(self.stack, self.style, images, train, mask)
        x = x.reshape(len(x), -1)
        for i, width in enumerate(self.stack.dense):
            x = self.style.activate(dense(width, self.style, f"dense_{i}")(x))
            x = Dropout(self.dropout, name=f"dropout_{i}")(x, deterministic=not train)
        logits = dense(self.labels, self.style, "logits")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    if TYPE_CHECKING:  # Modules are hashable by their fields, which Flax's annotations leave out.

        def __hash__(self) -> int: ...


def class_logits(model: Classifier, variables: Any, images: jax.Array) -> jax.Array:
    """Returns logits `[B, L]` of images `[B, H, W, C]` in [0, 1], outside of training."""
    return cast(Any, model.apply(variables, images, train=False))


def make_classifier(
    classifier: Mapping[str, Any], image_shape: tuple[int, int, int], labels: int
) -> Classifier:
    """Builds the model of `config.classifier`: ReLU, He initialisation.

    Args:
        classifier: The fields of `config.classifier`.
        image_shape: `(H, W, C)` of the data.
        labels: L, the number of classes or of attributes.
    """
    fields = dict(classifier)
    dropout = fields.pop("dropout")
    style = {name: fields.pop(name) for name in ("norm", "convolution")}
    return Classifier(
        image_shape=image_shape,
        labels=labels,
        stack=Stack(**{name: tuple(value) for name, value in fields.items()}),
        style=BlockStyle("relu", norm_momentum=0.9, kernel_init="he_normal", **style),
        dropout=dropout,
    )

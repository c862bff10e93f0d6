"""The variational autoencoder: encode, reparameterize, decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.blocks import BlockStyle, Stack
from vae_jax.models.decoder import Decoder, check_output_shape
from vae_jax.models.encoder import Encoder, feature_shape
from vae_jax.types import VAEOutput


def latent_noise(key: jax.Array, count: int, z_dim: int, dtype: jnp.dtype) -> jax.Array:
    """Standard normal noise `[count, Z]` whose first columns do not depend on Z.

    Drawn as `[Z, count]`: counter-based bits are a function of the flat index, so a member of
    a sweep that is padded to a larger Z sees the noise that it would see alone.
    """
    return jax.random.normal(key, (z_dim, count), dtype).T


def reparameterize(mean: jax.Array, log_var: jax.Array, noise: jax.Array) -> jax.Array:
    """z = mean + exp(log_var / 2) noise, all `[B, Z]` (Kingma & Welling 2014, section 2.4)."""
    return mean + jnp.exp(0.5 * log_var) * noise


class VAE(nn.Module):
    """Encoder and decoder under one roof.

    Attributes:
        image_shape: `(H, W, C)`.
        z_dim: Z.
        encoder_stack: layers of the encoder.
        decoder_stack: layers of the decoder.
        style: what all layers share.
        decoder_dense_activation: activation of the decoder's dense layer.
        remat: recompute activations in the backward pass.
        sample: draw z from the posterior where the objective is computed; a plain autoencoder
            does not, and decodes the mean.
    """

    image_shape: tuple[int, int, int]
    z_dim: int
    encoder_stack: Stack
    decoder_stack: Stack
    style: BlockStyle
    decoder_dense_activation: str = "none"
    remat: bool = False
    sample: bool = True

    def setup(self) -> None:
        start_shape = feature_shape(self.encoder_stack, self.image_shape)
        check_output_shape(self.decoder_stack, start_shape, self.image_shape)
        self.encoder = Encoder(self.z_dim, self.encoder_stack, self.style, self.remat)
        self.decoder = Decoder(
            start_shape,
            self.image_shape[-1],
            self.decoder_stack,
            self.style,
            self.decoder_dense_activation,
            self.remat,
        )

    def __call__(
        self,
        images: jax.Array,
        train: bool,
        sample: bool,
        labels: jax.Array | None = None,
        mask: jax.Array | None = None,
        z_mask: jax.Array | None = None,
        noise: jax.Array | None = None,
    ) -> VAEOutput:
        """Encode, draw z, decode.

        Args:
            images: `[B, H, W, C]` in [0, 1].
            train: use batch statistics and dropout (stream `dropout`).
            sample: draw z from the posterior (stream `latent`); else z is the mean.
            labels: `[B, L]` condition, or None.
            mask: `[B]` bool, images that count for the batch statistics.
            z_mask: `[Z]`, 0 for latent dimensions that a padded member of a sweep lacks.
            noise: `[B, Z]` of the posterior sample; None draws it, as `draw_noise` does.

        Returns:
            The logits and the posterior.
        """
        mean, log_var = self.encoder(images, train, labels, mask)
        z = mean
        if sample:
            if noise is None:
                noise = self.draw_noise(len(mean), mean.dtype)
            z = reparameterize(mean, log_var, noise)
        if z_mask is not None:
            z = z * z_mask[None, :]
        return VAEOutput(self.decoder(z, train, labels, mask), mean, log_var, z)

    def draw_noise(self, count: int, dtype: jnp.dtype) -> jax.Array:
        """`[count, Z]` from the stream `latent`: what a call draws for a batch of this size."""
        return latent_noise(self.make_rng("latent"), count, self.z_dim, dtype)

    def encode(
        self, images: jax.Array, labels: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, C]` to mean and log_var `[B, Z]`, with running statistics."""
        return self.encoder(images, False, labels)

    def decode(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """`[B, Z]` to logits `[B, H, W, C]`, with running statistics."""
        return self.decoder(z, False, labels)

    if TYPE_CHECKING:  # Modules are hashable by their fields, which Flax's annotations leave out.

        def __hash__(self) -> int: ...


def posterior_of(
    model: VAE, variables: Any, images: jax.Array, labels: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and log_var `[B, Z]` of images `[B, H, W, C]` in [0, 1], outside of training."""
    return cast(Any, model.apply(variables, images, labels, method="encode"))


def logits_of(
    model: VAE, variables: Any, z: jax.Array, labels: jax.Array | None = None
) -> jax.Array:
    """Logits `[B, H, W, C]` of latent points `[B, Z]`, outside of training."""
    return cast(Any, model.apply(variables, z, labels, method="decode"))


def make_vae(model: Mapping[str, Any], image_shape: tuple[int, int, int]) -> VAE:
    """Build the model of `config.model`.

    Args:
        model: the fields of `config.model`; an unknown one raises.
        image_shape: `(H, W, C)` of the data.

    Returns:
        The module; its parameters have the two subtrees `encoder` and `decoder`.

    Raises:
        UserError: the decoder's layers do not lead back to the image's size.
    """
    fields = dict(model)
    own = ("z_dim", "decoder_dense_activation", "remat", "sample")
    vae = VAE(
        image_shape=image_shape,
        encoder_stack=_stack(fields.pop("encoder")),
        decoder_stack=_stack(fields.pop("decoder")),
        **{name: fields.pop(name) for name in own},
        style=BlockStyle(**fields),
    )
    start_shape = feature_shape(vae.encoder_stack, vae.image_shape)
    check_output_shape(vae.decoder_stack, start_shape, vae.image_shape)
    return vae


def _stack(fields: Mapping[str, Any]) -> Stack:
    return Stack(**{name: tuple(value) for name, value in fields.items()})

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
from vae_jax.models.told import Pair, Told
from vae_jax.types import VAEOutput


def latent_noise(key: jax.Array, count: int, z_dim: int, dtype: jnp.dtype) -> jax.Array:
    """Returns standard normal noise `[count, Z]` whose first columns do not depend on Z.

    Drawn as `[Z, count]`: counter-based bits are a function of the flat index, so a member of
    a sweep that is padded to a larger Z sees the noise that it would see alone.
    """
    return jax.random.normal(key, (z_dim, count), dtype).T


def reparameterize(mean: jax.Array, log_var: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns z = mean + exp(log_var / 2) noise, all `[B, Z]` (Kingma & Welling 2014, 2.4)."""
    return mean + jnp.exp(0.5 * log_var) * noise


class VAE(nn.Module):
    """An encoder and a decoder.

    Attributes:
        image_shape: `(H, W, C)`.
        z_dim: Z.
        encoder_stack: The layers of the encoder.
        decoder_stack: The layers of the decoder.
        style: What all layers share.
        decoder_dense_activation: The activation of the decoder's dense layer.
        remat: Whether to recompute activations in the backward pass.
        sample: Whether to draw z from the posterior where the objective is computed; a plain
            autoencoder decodes the mean instead.
        told: What the model is told with every image; None for a model of one KL weight and Z.
    """

    image_shape: tuple[int, int, int]
    z_dim: int
    encoder_stack: Stack
    decoder_stack: Stack
    style: BlockStyle
    decoder_dense_activation: str = "none"
    remat: bool = False
    sample: bool = True
    told: Told | None = None

    def setup(self) -> None:
        start_shape = feature_shape(self.encoder_stack, self.image_shape)
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
        pair: Pair | None = None,
    ) -> VAEOutput:
        """Encodes, draws z, decodes.

        Args:
            images: `[B, H, W, C]` in [0, 1].
            train: Whether to use batch statistics and dropout (stream `dropout`).
            sample: Whether to draw z from the posterior (stream `latent`); else z is the mean.
            labels: `[B, L]` condition, or None.
            mask: `[B]` bool, the images that count for the batch statistics; None for all.
            z_mask: `[Z]` or `[B, Z]`, 0 for latent dimensions that a padded member of a sweep
                lacks, or that the pair of an image leaves out.
            noise: `[B, Z]`, the noise of the posterior sample; None to draw it by `draw_noise`.
            pair: A pair of `[B]` that the model is told; None if it is told nothing.

        Returns:
            The logits and the posterior.
        """
        code = self._code(len(images), pair)
        mean, log_var = self.encoder(images, train, labels, mask, code)
        z = mean
        if sample:
            if noise is None:
                noise = self.draw_noise(len(mean), mean.dtype)
            z = reparameterize(mean, log_var, noise)
        if z_mask is not None:
            z = z * (z_mask if z_mask.ndim == 2 else z_mask[None, :])
        return VAEOutput(self.decoder(z, train, labels, mask, code), mean, log_var, z)

    def _code(self, count: int, pair: Pair | None = None) -> jax.Array | None:
        if self.told is None:
            return None
        if self.is_initializing():
            return jnp.zeros((count, self.told.width), jnp.float32)
        if pair is None:
            raise ValueError("this model answers for a pair only; see `at_pair`")
        return self.told.code(pair)

    def draw_noise(self, count: int, dtype: jnp.dtype) -> jax.Array:
        """Returns noise `[count, Z]` from the stream `latent`, as a call draws it for a batch."""
        return latent_noise(self.make_rng("latent"), count, self.z_dim, dtype)

    def encode(
        self, images: jax.Array, labels: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns mean and log_var `[B, Z]` of `[B, H, W, C]`, with the running statistics."""
        return self.encoder(images, False, labels, code=self._code(0))

    def decode(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Returns logits `[B, H, W, C]` of `[B, Z]`, with the running statistics."""
        return self.decoder(z, False, labels, code=self._code(0))

    if TYPE_CHECKING:  # Modules are hashable by their fields, which Flax's annotations leave out.

        def __hash__(self) -> int: ...


def posterior_of(
    model: VAE, variables: Any, images: jax.Array, labels: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and log_var `[B, Z]` of images `[B, H, W, C]` in [0, 1], outside of training."""
    return cast(Any, model.apply(variables, images, labels, method="encode"))


def logits_of(
    model: VAE, variables: Any, z: jax.Array, labels: jax.Array | None = None
) -> jax.Array:
    """Returns logits `[B, H, W, C]` of latent points `[B, Z]`, outside of training."""
    return cast(Any, model.apply(variables, z, labels, method="decode"))


def make_vae(
    model: Mapping[str, Any], image_shape: tuple[int, int, int], told: Told | None = None
) -> VAE:
    """Builds the model of `config.model`.

    Args:
        model: The fields of `config.model`.
        image_shape: `(H, W, C)` of the data.
        told: What it is told with every image, see `vae_jax.config.what_is_told`.

    Returns:
        The module; its parameters have the two subtrees `encoder` and `decoder`.

    Raises:
        UserError: The decoder's layers do not lead back to the image's size.
    """
    fields = dict(model)
    own = ("z_dim", "decoder_dense_activation", "remat", "sample")
    vae = VAE(
        image_shape=image_shape,
        encoder_stack=_stack(fields.pop("encoder")),
        decoder_stack=_stack(fields.pop("decoder")),
        **{name: fields.pop(name) for name in own},
        style=BlockStyle(**fields),
        told=told,
    )
    start_shape = feature_shape(vae.encoder_stack, vae.image_shape)
    check_output_shape(vae.decoder_stack, start_shape, vae.image_shape)
    return vae


def at_pair(model: VAE, variables: Mapping[str, Any], pair: Pair) -> tuple[VAE, dict[str, Any]]:
    """Returns the model that a told model is at one pair: one that is told nothing.

    At a fixed pair gates are constant factors of channels and shifts are constants, so that they
    become part of the scales, kernels and biases; dimensions that the pair leaves out are cut off.

    Args:
        model: A model that is told something.
        variables: `params` and `batch_stats`, each of the encoder, the decoder or both.
        pair: A pair of numbers.

    Returns:
        The module, whose z_dim is that of the pair, and its variables.
    """
    assert model.told is not None
    z_dim = int(pair.z_dim)
    code = model.told.code(Pair(*(jnp.full((1,), value, jnp.float32) for value in pair)))
    params: dict[str, Any] = {
        network: {
            name: _folded(name, layers, code, transposed=network == "decoder")
            for name in layers
            if not name.endswith(("_gate", "_shift"))
        }
        for network, layers in variables["params"].items()
    }
    for name in ("mean", "log_var") if "encoder" in params else ():
        own = params["encoder"][name]
        params["encoder"][name] = {part: leaf[..., :z_dim] for part, leaf in own.items()}
    if "decoder" in params:
        own = params["decoder"]["dense"]
        rows = jnp.delete(own["kernel"], jnp.s_[z_dim : model.z_dim], axis=0)  # Labels' rows stay.
        params["decoder"]["dense"] = own | {"kernel": rows}
    return model.clone(told=None, z_dim=z_dim), {**variables, "params": params}


def _folded(
    name: str, layers: Mapping[str, Any], code: jax.Array, transposed: bool
) -> dict[str, Any]:
    """Returns the parameters of a layer, with its gate and shift at a code `[1, T]` in them."""
    own = dict(layers[name])
    gate, shift = (own.pop(part, layers.get(f"{name}_{part}")) for part in ("gate", "shift"))
    if gate is None or shift is None:  # The last layer of the decoder has none.
        return own
    factors = 2 * jax.nn.sigmoid(code @ gate["kernel"] + gate["bias"][None, :])[0]
    shifts = (code @ shift["kernel"])[0]
    if "norm" in own:
        scale, bias = own["norm"]["scale"], own["norm"]["bias"]
        return own | {"norm": {"scale": scale * factors, "bias": bias * factors + shifts}}
    out_axis = -2 if transposed and own["kernel"].ndim == 4 else -1
    other_axes = [axis for axis in range(-own["kernel"].ndim, 0) if axis != out_axis]
    kernel = own["kernel"] * jnp.expand_dims(factors, other_axes)
    return {"kernel": kernel, "bias": own["bias"] * factors + shifts}


def _stack(fields: Mapping[str, Any]) -> Stack:
    return Stack(**{name: tuple(value) for name, value in fields.items()})

"""Exports networks as artifacts of `jax.export` that run without this package, at any batch size.

The parameters are constants of the artifact. A JSON beside it says what inputs and outputs mean.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from vae_jax.files import json_bytes, write_files
from vae_jax.models.vae import VAE, logits_of, posterior_of
from vae_jax.priors.fitted import Prior, draw_at
from vae_jax.run import Run
from vae_jax.streams import GENERATOR
from vae_jax.types import UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
SUFFIX = ".jax"
FORMAT = "jax.export artifact with a symbolic batch size b"


def write_artifact(run: Run[VAE], network: str, out: str | Path) -> list[Path]:
    """Writes OUT/NETWORK.jax and OUT/NETWORK.json, both or none.

    Args:
        run: A run opened by `open_run`.
        network: `decoder`: z `[b, Z]` to images `[b, H, W, C]` in [0, 1]; `encoder`: images
            `[b, H, W, C]` in [0, 1] to mean and log_var `[b, Z]`. Conditional models take labels
            `[b, L]` as a second argument. All float32.
        out: The folder.

    Returns:
        The two paths.

    Raises:
        UserError: The package that JAX writes artifacts with is missing, or a file cannot be
            written.
    """
    return _write(_exported(run, network), meaning(run, network), network, out)


def write_sampler(run: Run[VAE], prior: Prior, out: str | Path) -> list[Path]:
    """Writes OUT/sampler.jax, which draws points of a prior for the decoder, and OUT/sampler.json.

    Args:
        run: A run opened by `open_run`.
        prior: A prior of the run. The sampler takes a seed, a uint32 scalar, and positions `[b]`
            uint32, and returns the points z `[b, Z]` that `priors.fitted.draw` has there;
            conditional models take labels `[b, L]` as a third argument.
        out: The folder.

    Returns:
        The two paths.

    Raises:
        UserError: See `write_artifact`.
    """
    arrays = prior.density, jnp.asarray(prior.location), jnp.float32(prior.temperature)

    def sampler(seed: jax.Array, positions: jax.Array, labels: jax.Array | None = None):
        data = jnp.stack([jnp.zeros_like(seed), seed])  # of the key that `make_key` makes
        key = jax.random.wrap_key_data(data, impl=GENERATOR)
        return draw_at(prior.kind, arrays, key, positions, labels)

    (batch,) = export.symbolic_shape("b")
    arguments = [jax.ShapeDtypeStruct(shape, jnp.uint32) for shape in ((), (batch,))]
    about = {
        "network": "sampler",
        "format": FORMAT,
        "inputs": {
            "seed": {"shape": [], "meaning": "uint32"},
            "positions": {
                "shape": ["b"],
                "meaning": "uint32; point i of a seed is always the same",
            },
        },
        "outputs": {
            "z": {"shape": ["b", run.model.z_dim], "meaning": "latent points for the decoder"}
        },
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        **run.provenance,
        **prior.provenance,
        "fitted": prior.facts,
    }
    if run.label_names:
        arguments.append(jax.ShapeDtypeStruct((batch, len(run.label_names)), jnp.float32))
        about["inputs"] |= _labels_meaning(run)
    exported = export.export(jax.jit(sampler), platforms=PLATFORMS)(*arguments)
    return _write(exported, about, "sampler", out)


def _write(
    exported: export.Exported, about: dict[str, Any], name: str, out: str | Path
) -> list[Path]:
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "jax.export writes artifacts with the package flatbuffers, which is not installed; "
            "install the extra `export`"
        )
    artifact = bytes(exported.serialize())
    return write_files(out, {f"{name}{SUFFIX}": artifact, f"{name}.json": json_bytes(about)})


def _exported(run: Run[VAE], network: str) -> export.Exported:
    """Traces and lowers one network with a symbolic batch size b."""
    # Matrix products choose their layout by the batch size, which an artifact leaves open.
    model = run.model.clone(style=replace(run.model.style, convolution="xla"))

    def decoder(z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        return jax.nn.sigmoid(logits_of(model, run.variables, z, labels))

    def encoder(images: jax.Array, labels: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return posterior_of(model, run.variables, images, labels)

    functions = {"decoder": (decoder, (model.z_dim,)), "encoder": (encoder, model.image_shape)}
    function, shape = functions[network]
    (batch,) = export.symbolic_shape("b")
    arguments = [jax.ShapeDtypeStruct((batch, *shape), jnp.float32)]
    if run.label_names:
        arguments.append(jax.ShapeDtypeStruct((batch, len(run.label_names)), jnp.float32))
    return export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)


def meaning(run: Run[VAE], network: str) -> dict[str, Any]:
    """Returns what an artifact takes and gives, as plain data for JSON.

    Args:
        run: A run opened by `open_run`.
        network: See `write_artifact`.
    """
    z, images = ["b", run.model.z_dim], ["b", *run.model.image_shape]
    pixels = "pixels in [0, 1], rows from the top, RGB or grey"
    inputs = {
        "decoder": {"z": {"shape": z, "meaning": "latent points, see sampler.json"}},
        "encoder": {"images": {"shape": images, "meaning": pixels}},
    }[network]
    outputs = {
        "decoder": {"images": {"shape": images, "meaning": pixels}},
        "encoder": {
            "mean": {"shape": z, "meaning": "posterior mean"},
            "log_var": {"shape": z, "meaning": "logarithm of the posterior variance"},
        },
    }[network]
    if run.label_names:
        inputs |= _labels_meaning(run)
    return {
        "network": network,
        "format": FORMAT,
        "dtype": "float32",
        "inputs": inputs,
        "outputs": outputs,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        "likelihood": run.config.loss.likelihood,
        **run.provenance,
    }


def _labels_meaning(run: Run[VAE]) -> dict[str, Any]:
    meaning = "condition, 0 or 1 for each of: " + ", ".join(run.label_names)
    return {"labels": {"shape": ["b", len(run.label_names)], "meaning": meaning}}

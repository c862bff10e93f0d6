"""Networks as artifacts that run without this package: `jax.export`, any batch size.

The parameters are constants of the artifact. What its inputs and outputs mean is a JSON beside it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from vae_jax.checkpoint.saving import NETWORKS
from vae_jax.files import json_bytes, write_files
from vae_jax.models.vae import VAE, logits_of, posterior_of
from vae_jax.run import Run
from vae_jax.types import UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
SUFFIX = ".jax"


def network_function(run: Run[VAE], network: str) -> Callable[..., Any]:
    """One network of a run as a plain function of arrays.

    Args:
        run: of `open_run`.
        network: `decoder`: z `[b, Z]` to images `[b, H, W, C]` in [0, 1]; `encoder`: images
            `[b, H, W, C]` in [0, 1] to mean and log_var `[b, Z]`. Conditional models take labels
            `[b, L]` as a second argument. All float32.

    Returns:
        The function.

    Raises:
        UserError: there is no such network.
    """
    if network not in NETWORKS:
        raise UserError(f"{network!r} is not a network; valid are {', '.join(NETWORKS)}")

    # Matrix products choose their layout by the batch size, which an artifact leaves open.
    model = run.model.clone(style=replace(run.model.style, convolution="xla"))

    def decoder(z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        return jax.nn.sigmoid(logits_of(model, run.variables, z, labels))

    def encoder(images: jax.Array, labels: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return posterior_of(model, run.variables, images, labels)

    return {"decoder": decoder, "encoder": encoder}[network]


def export_network(
    run: Run[VAE], network: str, platforms: tuple[str, ...] = PLATFORMS
) -> export.Exported:
    """Trace and lower one network with symbolic batch size b.

    Args:
        run: of `open_run`.
        network: see `network_function`.
        platforms: that the artifact runs on.

    Returns:
        The artifact.
    """
    (batch,) = export.symbolic_shape("b")
    ends = {"decoder": (run.model.z_dim,), "encoder": run.model.image_shape}
    function = network_function(run, network)
    arguments = [jax.ShapeDtypeStruct((batch, *ends[network]), jnp.float32)]
    if run.label_names:
        arguments.append(jax.ShapeDtypeStruct((batch, len(run.label_names)), jnp.float32))
    return export.export(jax.jit(function), platforms=platforms)(*arguments)


def meaning(run: Run[VAE], network: str, platforms: tuple[str, ...] = PLATFORMS) -> dict[str, Any]:
    """What an artifact takes and gives, as plain data.

    Args:
        run: of `open_run`.
        network: see `network_function`.
        platforms: that the artifact runs on.

    Returns:
        Ready for JSON.
    """
    z, images = ["b", run.model.z_dim], ["b", *run.model.image_shape]
    pixels = "pixels in [0, 1], rows from the top, RGB or grey"
    inputs = {
        "decoder": {"z": {"shape": z, "meaning": "latent points; prior N(0, I)"}},
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
        inputs["labels"] = {
            "shape": ["b", len(run.label_names)],
            "meaning": "condition, 0 or 1 for each of: " + ", ".join(run.label_names),
        }
    return {
        "network": network,
        "format": "jax.export artifact with a symbolic batch size b",
        "dtype": "float32",
        "inputs": inputs,
        "outputs": outputs,
        "platforms": list(platforms),
        "jax": jax.__version__,
        "likelihood": run.config.loss.likelihood,
        **run.provenance,
    }


def write_artifact(run: Run[VAE], network: str, out: str | Path) -> list[Path]:
    """Writes OUT/NETWORK.jax and OUT/NETWORK.json, both or none.

    Args:
        run: of `open_run`.
        network: see `network_function`.
        out: folder.

    Returns:
        The two paths.

    Raises:
        UserError: the package that JAX writes artifacts with is missing, or a file cannot be
            written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "jax.export writes artifacts with the package flatbuffers, which is not installed; "
            "install the extra `export`"
        )
    artifact = bytes(export_network(run, network).serialize())
    text = json_bytes(meaning(run, network))
    return write_files(out, {f"{network}{SUFFIX}": artifact, f"{network}.json": text})

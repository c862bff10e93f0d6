"""The pictures that every training leaves behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vae_jax.data.corruption import erased_pixels, evaluation_key
from vae_jax.data.inputs import InputStage, evaluation_pair, make_input_stage
from vae_jax.data.splits import condition_labels, first_images, open_splits
from vae_jax.latent.sampling import decode, encode, in_batches, prior_latents
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.streams import stream_key
from vae_jax.workdir import open_run

SEED = 0
COLUMNS = 8


def draw_run(workdir: str | Path) -> list[Path]:
    """Write samples.png (decoded N(0, I) points) and reconstructions.png of the newest checkpoint.

    Where inputs are corrupted, reconstructions.png shows them between original and reconstruction.

    Args:
        workdir: run folder; the pictures go there.

    Returns:
        Their paths.
    """
    run = open_run(workdir)
    data, model = run.config.data, run.model
    test = open_splits(data).test
    test = first_images(test, min(run.config.eval.pictures, len(test)), "config.eval.pictures")
    labels = condition_labels(data, test)
    images = test.take(np.arange(len(test)))
    samples = decode(model, run.variables, prior_latents(SEED, len(test), model.z_dim), labels)
    corrupted = not make_input_stage(data).corruption.is_off
    inputs = evaluated_inputs(run.config, images)[0] if corrupted else images
    mean, _ = encode(model, run.variables, inputs, labels)
    rows, names = [images, decode(model, run.variables, mean, labels)], "reconstruction of the mean"
    if corrupted:
        rows, names = [images, inputs, rows[1]], f"input, {names}"
    pictures = {
        "samples.png": (samples, {"seed": str(SEED)}),
        "reconstructions.png": (paired_rows(rows, COLUMNS), {"rows": f"original, {names}"}),
    }
    for name, (pixels, facts) in pictures.items():
        save_png(Path(workdir) / name, image_grid(pixels, COLUMNS), run.provenance | facts)
    return [Path(workdir) / name for name in pictures]


def evaluated_inputs(config: ConfigDict, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first images of the test split as validation shows them to the model.

    Args:
        config: of the run; its seed and corruption.
        images: `[N, H, W, C]` uint8, in the order of the split.

    Returns:
        inputs `[N, H, W, C]` float32 in [0, 1], and which pixels are erased, `[N, H, W, 1]` bool.
    """
    key = stream_key(jax.random.key(config.seed), "evaluation")
    program = partial(_inputs, make_input_stage(config.data), key)
    inputs, erased = in_batches(program, images, np.arange(len(images)))
    return inputs, erased


@partial(jax.jit, static_argnums=0)
def _inputs(
    stage: InputStage, key: jax.Array, images: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    inputs, targets = evaluation_pair(stage, key, images, positions[0])
    if not stage.corruption.erases:
        return inputs, jnp.zeros((*images.shape[:3], 1), bool)
    return inputs, erased_pixels(evaluation_key(key), targets, stage.corruption, positions[0])

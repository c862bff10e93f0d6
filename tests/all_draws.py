"""Prints the SHA-256 of what is drawn for some seeds, under whatever settings JAX has."""

import hashlib
import json

import jax
import numpy as np

from configs import tiny
from vae_jax.data.batches import epoch_order
from vae_jax.models.vae import latent_noise
from vae_jax.run import decode, prior_latents
from vae_jax.streams import MAX_SEED, make_key
from vae_jax.train.setup import make_experiment
from vae_jax.types import Batch

ALL_INPUTS = {
    "seed": MAX_SEED,
    "model.dropout": 0.2,
    "data.augmentation.flip": True,
    "data.augmentation.shift": 2,
    "data.augmentation.brightness": 0.1,
    "data.corruption.gaussian_sigma": 0.1,
    "data.corruption.drop_fraction": 0.3,
    "data.corruption.drop_value": "noise",
    "data.corruption.mask": "rectangle",
    "data.corruption.mask_size": 4,
}


def first_step(activation):
    """Images of an untrained model, and the metrics of a step that draws all there is to draw."""
    config = tiny.get_config()
    config.update_from_flattened_dict(ALL_INPUTS | {"model.activation": activation})
    experiment = make_experiment(config, total_steps=10)
    state, z = experiment.init_state(), prior_latents(1, 9, config.model.z_dim)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    pixels = np.arange(4 * 16 * 16 * 3).reshape(4, 16, 16, 3).astype(np.uint8)
    batch = Batch(jax.numpy.asarray(pixels), np.ones(4, np.float32))
    step = jax.jit(experiment.train_step)
    metrics = step(state, batch, experiment.run_key, experiment.hyper)[1]
    return decode(experiment.model, variables, z), metrics["loss"]


def digests():
    """SHA-256 by name of what was drawn."""
    narrow, wide = (latent_noise(make_key(5), 4, z_dim, np.float32) for z_dim in (3, 5))
    np.testing.assert_array_equal(wide[:, :3], narrow)  # what padded members of a sweep share
    drawn = {
        "points": prior_latents(33, 40, 3),
        "order": epoch_order(7, 2, 100),
        "noise": wide,
        "dropout": first_step("leaky_relu"),
        "alpha dropout": first_step("selu"),
    }
    found = {}
    for name, tree in drawn.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        text = b"".join(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes() for leaf in leaves)
        found[name] = hashlib.sha256(text).hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps(digests()))

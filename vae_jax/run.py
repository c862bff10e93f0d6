"""Opens trained runs, and computes with their networks: codes, images, probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.checkpoint.saving import (
    NETWORKS,
    SavedSteps,
    network_items,
    network_variables,
)
from vae_jax.data.batches import to_unit_range
from vae_jax.data.splits import ARRAYS, Splits, open_splits
from vae_jax.memory import require_memory
from vae_jax.metrics.densities import normal
from vae_jax.models.blocks import layer_features, layer_names
from vae_jax.models.classifier import Classifier, class_logits, make_classifier
from vae_jax.models.told import CONFIGS_OWN, Pair
from vae_jax.models.vae import VAE, at_pair, logits_of, make_vae, posterior_of
from vae_jax.run_folder import CHECKPOINTS, read_config
from vae_jax.streams import GENERATOR, make_key
from vae_jax.types import UserError

# Fixed, since a matrix product may round differently for another number of rows: image i is
# always computed in row i mod BATCH of the same program.
BATCH = 64

Model = TypeVar("Model", VAE, Classifier)


@dataclass(frozen=True)
class Run(Generic[Model]):
    """A trained model, as a checkpoint of its run folder holds it.

    Attributes:
        workdir: The folder.
        config: The config as the run resolved it.
        step: The step of the checkpoint.
        model: The module.
        variables: `{'params': ..., 'batch_stats': ...}` of the networks that were asked for.
        label_names: The names of the condition, empty if there is none; of a classifier, what it
            predicts.
        data_named: Whether the user named the place of its images, so that they may be prepared
            there.
        pair: The pair at which a told model was opened, see `run_at`; None for any other model.
    """

    workdir: Path
    config: ConfigDict
    step: int
    model: Model
    variables: dict[str, Any]
    label_names: tuple[str, ...]
    data_named: bool = False
    pair: Pair | None = None

    @property
    def provenance(self) -> dict[str, str]:
        """Returns what pictures of this run say of their origin."""
        pair = {} if self.pair is None else self.pair._asdict()
        return {
            "checkpoint_step": str(self.step),
            "config_digest": configs.digest(self.config),
            "generator": GENERATOR,
        } | {name: f"{value:g}" for name, value in pair.items()}


def open_run(
    workdir: str | Path,
    step: int | None = None,
    networks: tuple[str, ...] = NETWORKS,
    data: str | None = None,
    pair: Pair = CONFIGS_OWN,
) -> Run[VAE]:
    """Opens a trained VAE.

        run = open_run("runs/faces")
        z = prior_latents(seed=33, count=8, z_dim=run.model.z_dim)
        images = decode(run.model, run.variables, z)  # [8, H, W, C] in [0, 1]

    Args:
        workdir: The run folder.
        step: The step of the checkpoint; None for the newest good one.
        networks: Which of `encoder` and `decoder` to read; the other one is not touched.
        data: Where its images lie now, or may be prepared; None for `config.data.path`.
        pair: The KL weight and the latent size to open a told model at.

    Returns:
        The run.

    Raises:
        UserError: There is no run folder, no good checkpoint, or one that does not fit the config;
            or the model was not trained for the pair.

    >>> from vae_jax.run import decode, encode, open_run, prior_latents
    >>> run = open_run("runs/tiny")
    >>> z = prior_latents(33, 4, run.model.z_dim)
    >>> images = decode(run.model, run.variables, z)
    >>> images.shape
    (4, 16, 16, 3)
    """
    return run_at(open_plane(workdir, step, networks, data, pair), pair)


def open_plane(
    workdir: str | Path,
    step: int | None = None,
    networks: tuple[str, ...] = NETWORKS,
    data: str | None = None,
    asked: Pair = CONFIGS_OWN,
) -> Run[VAE]:
    """Opens a trained VAE without choosing a pair, for `run_at`; see `open_run`.

    The pair `asked`, which is meant to be chosen later, is checked before anything large is read.
    """
    config = _config(workdir, "run", data)
    configs.told_pair(config, asked)
    model = make_vae(config.model, config.data.image_shape, configs.what_is_told(config))
    saved = SavedSteps(Path(workdir) / CHECKPOINTS)
    label_names = _label_names(saved, workdir, step)
    shapes = network_shapes(model, len(label_names))
    restored = saved.restore({name: shapes[name] for name in networks}, step)
    variables = network_variables(restored.items)
    named = data is not None
    return Run(Path(workdir), config, restored.step, model, variables, label_names, named)


def run_at(run: Run[VAE], pair: Pair) -> Run[VAE]:
    """Returns what a told model is at one pair: a run like one that was trained for it alone.

        plane = open_plane("runs/plane_mnist")
        for z_dim in (2, 8, 32):
            run = run_at(plane, Pair(kl_weight=0.5, z_dim=z_dim))

    Its model is told nothing and has the latent size of the pair, and its config has the values of
    the pair, so that it can be used like any other run.

    Args:
        run: A run opened by `open_plane`.
        pair: The KL weight and the latent size; what is None is taken from the config.

    Returns:
        The run; one whose model is told nothing is returned as it is.

    Raises:
        UserError: The model was not trained for the pair.
    """
    chosen = configs.told_pair(run.config, pair)
    if chosen is None:
        return run
    model, variables = at_pair(run.model, run.variables, chosen)
    config = run.config.copy_and_resolve_references()
    config.loss.kl_weight, config.model.z_dim = float(chosen.kl_weight), int(chosen.z_dim)
    with config.unlocked():
        del config["told"]
    return replace(run, config=config, model=model, variables=variables, pair=chosen)


def open_classifier(
    workdir: str | Path, step: int | None = None, data: str | None = None
) -> Run[Classifier]:
    """Opens a trained classifier.

    Args:
        workdir: The run folder.
        step: The step of the checkpoint; None for the newest good one.
        data: Where its images lie now, or may be prepared; None for `config.data.path`.

    Returns:
        The run; its variables have the subtree `classifier`, and its logits the order of
        `label_names`.

    Raises:
        UserError: The folder is not that of a classifier, or has no good checkpoint.
    """
    config = _config(workdir, "classifier", data)
    saved = SavedSteps(Path(workdir) / CHECKPOINTS)
    label_names = _label_names(saved, workdir, step)
    model = make_classifier(config.classifier, config.data.image_shape, len(label_names))
    images = jnp.zeros((1, *model.image_shape))
    shapes = jax.eval_shape(lambda key: model.init(key, images, False), make_key(0))
    item = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
    restored = saved.restore({"classifier": item}, step)
    variables = network_variables(restored.items)
    named = data is not None
    return Run(Path(workdir), config, restored.step, model, variables, label_names, named)


def open_judge(workdir: str | Path, data: Mapping[str, Any], digest: str = "") -> Run[Classifier]:
    """Opens a classifier that is to judge images of a data set.

    Args:
        workdir: The classifier's run folder.
        data: The fields of `config.data` of what it judges.
        digest: The digest of that data set; by default the one in `data`.

    Raises:
        UserError: See `open_classifier`; or the classifier was trained on images of another shape
            or another known data set.
    """
    judge = open_classifier(workdir)
    own = judge.config.data
    if judge.model.image_shape != tuple(data["image_shape"]):
        raise UserError(
            f"the classifier in {str(workdir)!r} sees images of {judge.model.image_shape}, but "
            f"these are {tuple(data['image_shape'])}: train one on the same images"
        )
    digests = {own["digest"], digest or data["digest"]} - {""}
    # Two preparations of one kind may well show the same images; others never do.
    if len(digests) > 1 and (own["name"] != data["name"] or own["name"] in ARRAYS):
        raise UserError(
            f"the classifier in {str(workdir)!r} was trained on other images ({own['name']} at "
            f"{own['path']}) than these ({data['name']} at {data['path']}): train one on the same"
        )
    return judge


def _config(workdir: str | Path, kind: str, data: str | None) -> ConfigDict:
    config = read_config(workdir, kind)
    if data is not None:
        config.data.path = data
    return config


def _label_names(saved: SavedSteps, workdir: str | Path, step: int | None) -> tuple[str, ...]:
    newest = saved.latest_step() if step is None else step
    if newest is None:
        raise UserError(f"{str(workdir)!r} holds no checkpoint yet; train it first")
    names = saved.read_metadata(newest).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"checkpoint step {newest} in {saved.directory} was altered: its label_names are "
            f"{names!r}; name another --step"
        )
    return tuple(names)


def network_shapes(model: VAE, label_dim: int) -> dict[str, Any]:
    """Returns shapes and dtypes of `network_items` for a model, without computing anything."""

    def init(key: jax.Array) -> Any:
        labels = jnp.zeros((1, label_dim)) if label_dim else None
        return model.init(key, jnp.zeros((1, *model.image_shape)), False, False, labels)

    shapes = jax.eval_shape(init, make_key(0))
    empty = {network: {} for network in NETWORKS}
    return network_items(shapes["params"], empty | shapes.get("batch_stats", {}))


def prior_latents(seed: int, count: int, z_dim: int) -> np.ndarray:
    """Returns points of N(0, I); point i depends on (seed, i) alone.

    Args:
        seed: The seed of the draw, 0 to `streams.MAX_SEED`.
        count: N.
        z_dim: Z.

    Returns:
        `[N, Z]` float32.

    Raises:
        UserError: The machine cannot hold them.

    >>> points = prior_latents(33, 4, 8)
    >>> np.array_equal(points[:2], prior_latents(33, 2, 8))
    True
    """
    what = f"{count:,} latent points of {z_dim} dimensions"
    require_memory(2 * 4 * count * z_dim, what, "ask for fewer")
    return np.asarray(normal(make_key(seed), count, z_dim))


def decode(
    model: VAE, variables: Any, z: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """Decodes latent points; image i depends on z[i] and i mod BATCH alone.

    Args:
        model: The module.
        variables: Parameters and statistics of the decoder, or of both networks.
        z: `[N, Z]`.
        labels: `[N, L]` condition, or None.

    Returns:
        `[N, H, W, C]` float32 in [0, 1].

    Raises:
        UserError: The machine cannot hold them.
    """
    shape = "x".join(map(str, model.image_shape))
    what = f"{len(z):,} images of {shape}"
    require_memory(4 * len(z) * math.prod(model.image_shape), what, "ask for fewer")
    (images,) = in_batches(partial(_decode, model, variables), z, labels)
    return images


def encode(
    model: VAE, variables: Any, images: np.ndarray, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes images to the mean and log-variance of their posteriors.

    Args:
        model: The module.
        variables: Parameters and statistics of the encoder, or of both networks.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        labels: `[N, L]` condition, or None.

    Returns:
        mean and log_var, `[N, Z]` float32 each.

    >>> run = open_run("runs/tiny")
    >>> mean, log_var = encode(run.model, run.variables, np.zeros((2, 16, 16, 3), np.float32))
    >>> mean.shape
    (2, 4)
    """
    mean, log_var = in_batches(partial(_encode, model, variables), images, labels)
    return mean, log_var


def in_batches(
    function: Callable[..., tuple[jax.Array | np.ndarray, ...]], *arrays: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Applies a function of `[BATCH, ...]` arrays to `[N, ...]` arrays, the last batch padded.

    Args:
        function: Returns a tuple of `[BATCH, ...]` arrays.
        arrays: `[N, ...]` each, or None, which the function gets as it is.

    Returns:
        A tuple of `[N, ...]` arrays.
    """
    count = next(len(array) for array in arrays if array is not None)
    pieces = []
    for start in range(0, max(count, 1), BATCH):
        batch = [None if a is None else _padded(a[start : start + BATCH]) for a in arrays]
        pieces.append([np.asarray(result) for result in function(*batch)])
    return tuple(np.concatenate(parts)[:count] for parts in zip(*pieces, strict=True))


def _padded(array: np.ndarray) -> np.ndarray:
    padding = [(0, BATCH - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, padding)


@partial(jax.jit, static_argnums=0)
def _decode(model: VAE, variables: Any, z: jax.Array, labels: jax.Array | None) -> tuple[jax.Array]:
    return (jax.nn.sigmoid(logits_of(model, variables, z, labels)),)


@partial(jax.jit, static_argnums=0)
def _encode(
    model: VAE, variables: Any, images: jax.Array, labels: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    return posterior_of(model, variables, to_unit_range(images), labels)


def run_splits(run: Run[Any]) -> Splits:
    """Opens the images that a run was trained on; prepares them only where the user named a place.

    Raises:
        UserError: They are not prepared, or others lie there; the sentence names `--data`.
    """
    return open_splits(run.config.data, prepare=run.data_named, setting="--data=PATH")


def predict(run: Run[Classifier], images: np.ndarray) -> np.ndarray:
    """Returns the probabilities that a classifier gives to its labels.

    Args:
        run: A run opened by `open_classifier`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        `[N, L]` float32, in the order of `run.label_names`: of exclusive classes (they add to 1),
        or of independent binary attributes.
    """
    exclusive = run.config.data.condition == "class"
    variables = {kind: trees["classifier"] for kind, trees in run.variables.items()}
    program = partial(_probabilities, run.model, exclusive, variables)
    (probabilities,) = in_batches(program, images)
    return probabilities


@partial(jax.jit, static_argnums=(0, 1))
def _probabilities(
    model: Classifier, exclusive: bool, variables: Any, images: jax.Array
) -> tuple[jax.Array]:
    logits = class_logits(model, variables, to_unit_range(images))
    return (jax.nn.softmax(logits) if exclusive else jax.nn.sigmoid(logits),)


def classifier_features(run: Run[Classifier], images: np.ndarray) -> np.ndarray:
    """Returns the means of the last feature maps of a classifier.

    Args:
        run: A run opened by `open_classifier`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        `[N, F]`: a space in which samples of different models can be compared, since it depends
        on none of them.
    """
    variables = {kind: trees["classifier"] for kind, trees in run.variables.items()}
    stack, style = run.model.stack, run.model.style
    program = partial(_map_means, layer_features(stack, style, variables, layer_names(stack)[-1]))
    (features,) = in_batches(program, images)
    return features


@jax.jit
def _map_means(layer: Any, images: jax.Array) -> tuple[jax.Array]:
    return (layer(to_unit_range(images)).mean(axis=(1, 2)),)

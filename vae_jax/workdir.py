"""The one way to open a run folder, whoever asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.checkpoint.saved_steps import SavedSteps
from vae_jax.models.classifier import Classifier, make_classifier
from vae_jax.models.vae import VAE, make_vae
from vae_jax.types import UserError

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
NETWORKS = ("encoder", "decoder")

Model = TypeVar("Model", VAE, Classifier)


@dataclass(frozen=True)
class Run(Generic[Model]):
    """A trained model as it lies in a run folder.

    Attributes:
        workdir: the folder.
        config: as the run resolved it.
        step: of the checkpoint.
        model: the module.
        variables: `{'params': ..., 'batch_stats': ...}` of the networks that were asked for.
        label_names: of the condition, empty if there is none; of what a classifier predicts.
    """

    workdir: Path
    config: ConfigDict
    step: int
    model: Model
    variables: dict[str, Any]
    label_names: tuple[str, ...]

    @property
    def provenance(self) -> dict[str, str]:
        """What a picture made from this run says of its origin."""
        return {"checkpoint_step": str(self.step), "config_digest": configs.digest(self.config)}


def read_config(workdir: str | Path) -> ConfigDict:
    """The resolved config of a run.

    Raises:
        UserError: the folder is not a run folder.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{str(workdir)!r} is not a run folder: it has no {CONFIG_FILE}")
    try:
        return configs.from_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it from a copy") from None


def write_config(workdir: str | Path, config: ConfigDict) -> None:
    """Write WORKDIR/config.json, all or nothing."""
    path = Path(workdir) / CONFIG_FILE
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(configs.to_json(config))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def network_items(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint item for each network, with its parameters and statistics."""
    return {
        network: {"params": params[network], "batch_stats": batch_stats[network]}
        for network in params
    }


def network_variables(items: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `network_items`."""
    return {
        kind: {network: item[kind] for network, item in items.items()}
        for kind in ("params", "batch_stats")
    }


def network_shapes(model: VAE, label_dim: int) -> dict[str, Any]:
    """Shapes and dtypes of `network_items` for a model, without computing anything."""

    def init(key: jax.Array) -> Any:
        labels = jnp.zeros((1, label_dim)) if label_dim else None
        return model.init(key, jnp.zeros((1, *model.image_shape)), False, False, labels)

    shapes = jax.eval_shape(init, jax.random.key(0))
    empty = {network: {} for network in NETWORKS}
    return network_items(shapes["params"], empty | shapes.get("batch_stats", {}))


def open_run(
    workdir: str | Path, step: int | None = None, networks: tuple[str, ...] = NETWORKS
) -> Run[VAE]:
    """Restore a trained VAE.

    Args:
        workdir: the run folder.
        step: which checkpoint; None for the newest good one.
        networks: which of `encoder` and `decoder` to read; the others are not touched.

    Returns:
        The run.

    Raises:
        UserError: no run folder, no good checkpoint, or a checkpoint that does not fit the config.
    """
    config = read_config(workdir)
    if configs.is_classifier(config):
        raise UserError(f"{str(workdir)!r} holds a classifier, but a VAE is needed here")
    model = make_vae(config.model, config.data.image_shape)
    saved = SavedSteps(Path(workdir) / CHECKPOINTS)
    label_names = _label_names(saved, workdir, step)
    shapes = network_shapes(model, len(label_names))
    restored = saved.restore({name: shapes[name] for name in networks}, step)
    variables = network_variables(restored.items)
    return Run(Path(workdir), config, restored.step, model, variables, label_names)


def open_classifier(workdir: str | Path, step: int | None = None) -> Run[Classifier]:
    """Restore a trained classifier.

    Args:
        workdir: the run folder.
        step: which checkpoint; None for the newest good one.

    Returns:
        The run; its variables have the subtree `classifier`, and `label_names` belong to the
        logits.

    Raises:
        UserError: no run folder of a classifier, or no good checkpoint.
    """
    config = read_config(workdir)
    if not configs.is_classifier(config):
        raise UserError(f"{str(workdir)!r} holds a VAE, but a classifier is needed here")
    saved = SavedSteps(Path(workdir) / CHECKPOINTS)
    label_names = _label_names(saved, workdir, step)
    model = make_classifier(config.classifier, config.data.image_shape, len(label_names))
    images = jnp.zeros((1, *model.image_shape))
    shapes = jax.eval_shape(lambda key: model.init(key, images, False), jax.random.key(0))
    item = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
    restored = saved.restore({"classifier": item}, step)
    variables = network_variables(restored.items)
    return Run(Path(workdir), config, restored.step, model, variables, label_names)


def _label_names(saved: SavedSteps, workdir: str | Path, step: int | None) -> tuple[str, ...]:
    newest = saved.latest_step() if step is None else step
    if newest is None:
        raise UserError(f"{str(workdir)!r} holds no checkpoint yet; train it first")
    return tuple(saved.read_metadata(newest)["label_names"])

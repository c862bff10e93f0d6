"""The patterns of a layer of a trained network, and what test images do to the same maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from numpy.typing import ArrayLike

from vae_jax.config import is_classifier
from vae_jax.data.batches import to_unit_range
from vae_jax.data.splits import first_images, open_splits
from vae_jax.filters.excitation import (
    Excitation,
    LayerFn,
    Projection,
    excite,
    map_responses,
    unit_range,
)
from vae_jax.filters.study import Settings, seconds_per_map, starts_of_maps
from vae_jax.models.blocks import layer_features
from vae_jax.run import Run, in_batches, open_classifier, open_run
from vae_jax.run_folder import read_config
from vae_jax.types import UserError


@dataclass(frozen=True)
class Layer:
    """A layer of a trained network, as a function and by name."""

    run: Run
    name: str
    features: LayerFn
    map_count: int


@dataclass(frozen=True)
class Study:
    """Patterns of some maps of a layer.

    Attributes:
        layer: of a trained network.
        maps: `[M]` indices of its maps.
        settings: how the patterns were found.
        seed: of the starts.
        projection: to the model's input.
        found: the patterns.
        images: `[N, H, W, C]` test images.
        image_responses: `[N, M]`, of the same maps to them.
    """

    layer: Layer
    maps: np.ndarray
    settings: Settings
    seed: int
    projection: Projection
    found: Excitation
    images: np.ndarray
    image_responses: np.ndarray

    @cached_property
    def order(self) -> np.ndarray:
        """Positions of the maps that respond, strongest first."""
        by_response = np.argsort(-self.found.responses, kind="stable")
        return by_response[~self.found.dead[by_response]]

    @property
    def dead(self) -> list[int]:
        """Maps that respond to no start."""
        return self.maps[self.found.dead].tolist()

    def find(self, maps: ArrayLike, seed: int | None = None, snapshots: tuple = ()) -> Excitation:
        """The patterns of some maps, with the settings of this study."""
        seed = self.seed if seed is None else seed
        return find_patterns(self.layer, maps, self.projection, self.settings, seed, snapshots)

    def sentence(self) -> str:
        """What came out, in a line."""
        alive = len(self.order)
        line = f"{self.layer.name}: {alive} of {len(self.maps)} maps respond"
        if self.dead:
            line += f", dead: {', '.join(map(str, self.dead))}"
        if alive:
            steps = int(np.median(self.found.steps[self.order]))
            ratio = self.found.responses / np.maximum(self.image_responses.max(axis=0), 1e-12)
            line += (
                f"; {int(self.found.converged[self.order].sum())} converged, median {steps} steps; "
                f"response {np.median(ratio[self.order]):.1f} times that of the best of "
                f"{len(self.images):,} test images (median)"
            )
        return line


def open_layer(workdir: str, step: int | None, name: str) -> Layer:
    """The layer `name` of the classifier or the encoder in `workdir`.

    Raises:
        UserError: no such run or layer; the sentence lists the valid layers.
    """
    if is_classifier(read_config(workdir)):
        run, network = open_classifier(workdir, step), "classifier"
        stack = run.model.stack
    else:
        run, network = open_run(workdir, step, networks=("encoder",)), "encoder"
        stack = run.model.encoder_stack
    variables = {kind: trees[network] for kind, trees in run.variables.items()}
    features = layer_features(stack, run.model.style, variables, name)
    return Layer(run, name, features, stack.filters[int(name.removeprefix("conv_"))])


def find_patterns(
    layer: Layer,
    maps: ArrayLike,
    projection: Projection,
    settings: Settings,
    seed: int,
    snapshot_steps: tuple[int, ...] = (),
) -> Excitation:
    """The patterns of maps of a layer, each from its best start."""
    shape = layer.run.model.image_shape
    starts = starts_of_maps(layer.features, shape, maps, projection, settings, seed)
    steps, ascent = settings.steps, settings.ascent
    return excite(layer.features, starts, maps, projection, steps, ascent, snapshot_steps)


def make_study(
    layer: Layer, maps: tuple[int, ...] | None, settings: Settings, seed: int, image_count: int
) -> Study:
    """Excite `maps` (all for None) and measure what the first test images do to them."""
    for index in maps or ():
        if not 0 <= index < layer.map_count:
            raise UserError(
                f"{layer.name} has no map {index}; valid are 0 to {layer.map_count - 1}"
            )
    indices = np.arange(layer.map_count) if maps is None else np.asarray(maps)
    test = open_splits(layer.run.config.data).test
    test = first_images(test, min(image_count, len(test)), "--images")
    images = test.take(np.arange(len(test)))
    respond = jax.jit(lambda batch: (map_responses(layer.features, to_unit_range(batch)),))
    (responses,) = in_batches(respond, images)
    projection = unit_range(images)
    found = find_patterns(layer, indices, projection, settings, seed)
    return Study(layer, indices, settings, seed, projection, found, images, responses[:, indices])


def timing_sentence(study: Study) -> str:
    """Seconds a map when all are found at once, against one by one."""
    layer, settings, maps = study.layer, study.settings, study.maps
    shape = layer.run.model.image_shape
    starts = starts_of_maps(layer.features, shape, maps, study.projection, settings, study.seed)

    def find(positions: np.ndarray) -> Excitation:
        return excite(
            layer.features,
            starts[:, positions],
            maps[positions],
            study.projection,
            settings.steps,
            settings.ascent,
        )

    together, alone = seconds_per_map(find, len(maps))
    return (
        f"{together:.3f} s a map in one program for {len(study.maps)}, {alone:.3f} s one by one: "
        f"{alone / together:.1f} times as fast"
    )

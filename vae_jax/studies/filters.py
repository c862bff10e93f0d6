"""The patterns that excite the maps of a layer most, and the test images that excite them most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from vae_jax.config import is_classifier
from vae_jax.data.batches import to_unit_range
from vae_jax.data.splits import first_images
from vae_jax.models.blocks import layer_features
from vae_jax.report.charts import drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table
from vae_jax.report.pictures import captioned_grid
from vae_jax.run import Run, in_batches, open_classifier, open_run, run_splits
from vae_jax.run_folder import read_config
from vae_jax.streams import make_key
from vae_jax.studies.excitation import (
    DEFAULT_ASCENT,
    SCALES,
    Ascent,
    Excitation,
    LayerFn,
    Projection,
    Shape,
    excite,
    fourier_images,
    map_responses,
    scale_layers,
    superpose,
    unit_range,
)
from vae_jax.types import UserError

LOOP, BY_SCALE = 0, 1
LOOP_STEPS = (1000,)
SCALE_STEPS = (20, 40, 80, 400)
SHEET_COLUMNS = 12
SHOWN_MAPS = 10  # rows of the pictures that compare
SHOWN_IMAGES = 8


class Settings(NamedTuple):
    """How the patterns of a layer are searched for.

    Attributes:
        start: Start images: 'noise' at `scales`, or 'fourier'.
        scales: Cells across the image, coarse to fine; see `excitation.noise_images`.
        weights: Weights of the scales; None for equal ones.
        strategy: 0 evolves the whole superposition; 1 evolves noise at the first scale and then
            enriches the pattern with the noise of one scale after another.
        steps: Most steps, for strategy 1 of each scale.
        precursors: Number of starts that are tried; each map gets the one that it responds to most.
        ascent: Step size and convergence.
    """

    start: str = "noise"
    scales: tuple[int, ...] = SCALES
    weights: tuple[float, ...] | None = None
    strategy: int = LOOP
    steps: tuple[int, ...] = LOOP_STEPS
    precursors: int = 64
    ascent: Ascent = DEFAULT_ASCENT


@dataclass(frozen=True)
class Options:
    """What is measured and shown.

    Attributes:
        maps: Indices of feature maps; None for all.
        seed: Seed of the starts.
        seeds: Number of seeds that are shown side by side.
        evolve: The map that is shown evolving; None for the strongest.
        images: Test images to compare with, at most.
        settings: How patterns are searched for.
    """

    maps: tuple[int, ...] | None = None
    seed: int = 0
    seeds: int = 4
    evolve: int | None = None
    images: int = 10_000
    settings: Settings = Settings()


@dataclass(frozen=True)
class Layer:
    """A layer of a trained network, as a function and by name."""

    run: Run
    name: str
    features: LayerFn
    map_count: int


@dataclass(frozen=True)
class Result:
    """Patterns of some maps of a layer.

    Attributes:
        layer: The layer.
        maps: `[M]` indices of its maps.
        options: The options.
        projection: Projection to the model's input.
        found: The patterns.
        images: `[N, H, W, C]` test images.
        image_responses: `[N, M]` responses of the same maps to them.
        evolving: The map that is shown evolving, and its pattern after every one of
            `logarithmic_steps`, `[K, H, W, C]`; None if no map responds.
        by_seed: Patterns of the strongest maps from several seeds; empty if no map responds.
    """

    layer: Layer
    maps: np.ndarray
    options: Options
    projection: Projection
    found: Excitation = field(repr=False)
    images: np.ndarray = field(repr=False)
    image_responses: np.ndarray = field(repr=False)
    evolving: tuple[int, np.ndarray] | None = field(repr=False)
    by_seed: tuple[Excitation, ...] = field(repr=False)

    @property
    def order(self) -> np.ndarray:
        """Positions of the maps that respond, strongest first."""
        return strongest_first(self.found)

    @property
    def dead(self) -> list[int]:
        """Maps that respond to no start."""
        return self.maps[self.found.dead].tolist()

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of results.json."""
        found, best = self.found, self.image_responses.argmax(axis=0)
        maps = [
            {
                "map": int(self.maps[i]),
                "response": float(found.responses[i]),
                "loss": -float(found.responses[i]),
                "steps": int(found.steps[i]),
                "converged": bool(found.converged[i]),
                "best_test_image": int(best[i]),
                "best_test_response": float(self.image_responses[best[i], i]),
            }
            for i in self.order
        ]
        settings = self.options.settings
        numbers: dict[str, Any] = {
            "settings": settings._asdict() | {"ascent": settings.ascent._asdict()},
            "projection": self.projection._asdict(),
            "maps": maps,
            "dead": self.dead,
        }
        if self.by_seed:
            numbers["spectral_agreement"] = spectral_agreement(self.by_seed)
        return numbers


# Searching.


def candidate_starts(settings: Settings, image_shape: Shape, seed: int) -> jax.Array:
    """Returns starts `[S, P, H, W, C]` of P precursors, for each of the S stages of the strategy.

    Raises:
        UserError: Settings that do not fit together or do not fit the image.
    """
    stages = len(settings.scales) if settings.strategy == BY_SCALE else 1
    if len(settings.steps) != stages:
        raise UserError(
            f"strategy {settings.strategy} has {stages} stages, but {len(settings.steps)} numbers "
            f"of steps are given {tuple(settings.steps)}: give one for each"
        )
    key, count = make_key(seed), settings.precursors
    if settings.start == "fourier":
        if settings.strategy == BY_SCALE:
            raise UserError("strategy 1 goes from scale to scale, so it needs the start 'noise'")
        return fourier_images(key, count, image_shape)[None]
    layers = scale_layers(key, count, image_shape, settings.scales, settings.weights)
    return layers if settings.strategy == BY_SCALE else superpose(layers)[None]


def best_starts(
    layer: LayerFn, candidates: jax.Array, maps: ArrayLike, projection: Projection
) -> np.ndarray:
    """Returns the candidate that each map responds to most, before any ascent.

    Args:
        layer: The layer, see `LayerFn`.
        candidates: `[P, H, W, C]` start images.
        maps: `[M]` indices of feature maps.
        projection: Projection to the model's input.

    Returns:
        `[M]` indices of candidates; the first one for a map that responds to none.
    """
    responses = jax.jit(lambda images: map_responses(layer, projection(images)))(candidates)
    return np.argmax(np.asarray(responses)[:, np.asarray(maps)], axis=0)


def starts_of_maps(
    layer: LayerFn,
    image_shape: Shape,
    maps: ArrayLike,
    projection: Projection,
    settings: Settings,
    seed: int,
) -> jax.Array:
    """Returns starts `[S, M, H, W, C]` of maps for `excite`, each map's from its best precursor.

    Args:
        layer: The layer, see `LayerFn`.
        image_shape: `(H, W, C)`.
        maps: `[M]` indices of feature maps.
        projection: Projection to the model's input.
        settings: How patterns are searched for.
        seed: Seed of the starts.

    Raises:
        UserError: Settings that do not fit together or do not fit the image.
    """
    candidates = candidate_starts(settings, image_shape, seed)
    return candidates[:, best_starts(layer, candidates[0], maps, projection)]


def logarithmic_steps(total: int) -> tuple[int, ...]:
    """Returns 0, 1, 2, 4, 8, ... and `total`."""
    return (0, *(2**k for k in range(total.bit_length()) if 2**k < total), total)


def spectral_agreement(by_seed: Sequence[Excitation]) -> dict[str, float] | None:
    """Returns how alike patterns from different seeds are, wherever in the image the motif lies.

    Args:
        by_seed: Patterns of the same maps from several seeds.

    Returns:
        Mean correlation of the Fourier amplitudes (frequency 0 left out) between seeds of the
        `same_map`, and between `other_maps`; None for a single map or seed.
    """
    patterns = np.stack([found.patterns for found in by_seed], axis=1)
    maps, seeds = patterns.shape[:2]
    if min(maps, seeds) < 2:
        return None
    amplitudes = np.abs(np.fft.fft2(patterns, axes=(2, 3))).astype(np.float64)
    flat = amplitudes.reshape(maps * seeds, -1, patterns.shape[-1])[:, 1:].reshape(maps * seeds, -1)
    correlation = np.atleast_2d(np.corrcoef(flat))
    owner = np.repeat(np.arange(maps), seeds)
    same = np.equal.outer(owner, owner)
    return {
        "same_map": float(correlation[same & ~np.eye(len(owner), dtype=bool)].mean()),
        "other_maps": float(correlation[~same].mean()),
    }


def open_layer(workdir: str, step: int | None, name: str, data: str | None = None) -> Layer:
    """Opens the layer `name` of the classifier or the encoder in `workdir`.

    Raises:
        UserError: There is no such run or layer; the sentence lists the valid layers.
    """
    if is_classifier(read_config(workdir)):
        run, network = open_classifier(workdir, step, data), "classifier"
        stack = run.model.stack
    else:
        run, network = open_run(workdir, step, ("encoder",), data), "encoder"
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
    """Finds the patterns of maps of a layer, each from its best start."""
    shape = layer.run.model.image_shape
    starts = starts_of_maps(layer.features, shape, maps, projection, settings, seed)
    steps, ascent = settings.steps, settings.ascent
    return excite(layer.features, starts, maps, projection, steps, ascent, snapshot_steps)


def measure(layer: Layer, options: Options) -> Result:
    """Finds the patterns of maps of a layer, and measures the responses to test images.

    Args:
        layer: The layer.
        options: Which maps, and how their patterns are searched for.

    Raises:
        UserError: Maps that the layer does not have, or settings that do not fit the image.
    """
    for index in options.maps or ():
        if not 0 <= index < layer.map_count:
            raise UserError(
                f"{layer.name} has no map {index}; valid are 0 to {layer.map_count - 1}"
            )
    maps = np.arange(layer.map_count) if options.maps is None else np.asarray(options.maps)
    if options.evolve is not None and options.evolve not in maps:
        raise UserError(f"--evolve={options.evolve} is not among the maps {maps.tolist()}")
    test = run_splits(layer.run).test
    test = first_images(test, min(options.images, len(test)), "--images")
    images = test.take(np.arange(len(test)))
    respond = jax.jit(lambda batch: (map_responses(layer.features, to_unit_range(batch)),))
    (responses,) = in_batches(respond, images)
    projection, settings, seed = unit_range(images), options.settings, options.seed
    found = find_patterns(layer, maps, projection, settings, seed)
    evolving, by_seed, strongest = None, (), maps[strongest_first(found)]
    if len(strongest):
        index = int(strongest[0]) if options.evolve is None else options.evolve
        steps = logarithmic_steps(sum(settings.steps))
        evolution = find_patterns(layer, [index], projection, settings, seed, steps)
        evolving = index, evolution.snapshots[:, 0]
        by_seed = tuple(
            find_patterns(layer, strongest[:SHOWN_MAPS], projection, settings, seed + k)
            for k in range(options.seeds)
        )
    return Result(
        layer, maps, options, projection, found, images, responses[:, maps], evolving, by_seed
    )


def strongest_first(found: Excitation) -> np.ndarray:
    """Returns the positions of the maps that respond, strongest first."""
    by_response = np.argsort(-found.responses, kind="stable")
    return by_response[~found.dead[by_response]]


def seconds_per_map(find: Callable[[np.ndarray], Excitation], count: int) -> tuple[float, float]:
    """Returns the seconds per map when all are found together, and when found one by one.

    Args:
        find: Finds the patterns of the maps at the given positions.
        count: Number of maps.

    Returns:
        Both times without compilation: every program is run once before it is timed.
    """

    def timed(groups: Sequence[np.ndarray]) -> float:
        find(groups[0])
        began = time.monotonic()
        for group in groups:
            find(group)
        return (time.monotonic() - began) / count

    positions = np.arange(count)
    return timed([positions]), timed(np.split(positions, count))


def timing_sentence(result: Result) -> str:
    """Returns a sentence on the seconds per map, all at once against one by one."""
    layer, maps, projection = result.layer.features, result.maps, result.projection
    shape, options = result.layer.run.model.image_shape, result.options
    settings = options.settings
    starts = starts_of_maps(layer, shape, maps, projection, settings, options.seed)

    def find(rows: np.ndarray) -> Excitation:
        own = starts[:, rows]
        return excite(layer, own, maps[rows], projection, settings.steps, settings.ascent)

    together, alone = seconds_per_map(find, len(maps))
    return (
        f"{together:.3f} s per map in one program for {len(maps)}, {alone:.3f} s one by one: "
        f"{alone / together:.1f} times as fast"
    )


# Showing.


def page(result: Result) -> Page:
    """Returns the page of a layer's patterns."""
    options, numbers, pictures = result.options, result.numbers, {}
    facts = result.layer.run.provenance | {"layer": result.layer.name, "seed": str(options.seed)}
    if result.evolving is not None:
        names = [f"map {m}" for m in result.maps[result.order]]
        curves = response_curves(result.found.curves[:, result.order], names)
        steps = logarithmic_steps(sum(options.settings.steps))
        index, patterns = result.evolving
        evolution = captioned_grid(patterns, [f"step {step}" for step in steps], len(steps))
        pictures = {
            "All maps": ("filters", _sheet(result), "Every map that responds, strongest first; "
                         "below each its number and mean activation."),
            "From start to end": ("evolution", evolution,
                                  f"Map {index} after 0, 1, 2, 4, ... steps."),
            "Responses": ("curves", curves, "Mean activation of each map before each step."),
            "Beside test images": ("images", _beside_images(result), "One row per map: its "
                                   "pattern, then the test images that excite it most."),
            "From several seeds": ("seeds", _several_seeds(result), "One row per map, one column "
                                   "per seed of the start: what stays the same belongs to the map, "
                                   "what changes is chance."),
        }  # fmt: skip
    sections = [
        Section(heading, pictures=[Picture(name, image, caption)])
        for heading, (name, image, caption) in pictures.items()
    ]
    sections.append(Section("Numbers", tables=[_map_table(numbers["maps"])]))
    lead = (
        "Gradient ascent on the image finds what a feature map responds to most; a pattern has the "
        f"mean and the contrast of the data's images. {_sentence(result)}."
    )
    agreement = numbers.get("spectral_agreement")
    if agreement is not None:
        lead += (
            f" Fourier amplitudes from different seeds correlate by {agreement['same_map']:.2f} "
            f"for one map and by {agreement['other_maps']:.2f} between maps."
        )
    return Page(f"Filters of {result.layer.name}", lead, sections, facts)


def _sentence(result: Result) -> str:
    """Returns how many maps respond, and how strongly."""
    found, order, name = result.found, result.order, result.layer.name
    text = f"{name}: {len(order)} of {len(result.maps)} maps respond"
    if result.dead:
        text += f", dead: {', '.join(map(str, result.dead))}"
    if len(order):
        ratio = found.responses / np.maximum(result.image_responses.max(axis=0), 1e-12)
        text += (
            f"; {int(found.converged[order].sum())} converged, median "
            f"{int(np.median(found.steps[order]))} steps; response {np.median(ratio[order]):.1f} "
            f"times that of the best of {len(result.images):,} test images (median)"
        )
    return text


def response_curves(curves: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draws responses against steps, which are logarithmic.

    Args:
        curves: `[T, M]`, response of M maps at T steps.
        names: `[M]`, for the legend.
    """
    figure, ((axes,),) = new_chart(7, 4.5)
    for curve, name in zip(curves.T, names, strict=True):
        axes.plot(np.arange(1, len(curves) + 1), curve, linewidth=1, label=name)
    axes.set(xscale="log", xlabel="step", ylabel="mean activation of the map")
    if len(names) <= 12:
        axes.legend(fontsize="small")
    return drawn(figure)


def _map_table(maps: list[dict[str, Any]]) -> Table:
    rows = [
        [str(m["map"]), f"{m['response']:.3f}", f"{m['best_test_response']:.3f}",
         str(m["steps"]), "yes" if m["converged"] else "no"]
        for m in maps
    ]  # fmt: skip
    header = ("map", "response", "best test image", "steps", "converged")
    return Table(header, rows, "Mean activation of the map for its pattern and for the test image "
                 "that excites it most.")  # fmt: skip


def _sheet(result: Result) -> Image.Image:
    captions = [f"{result.maps[i]}: {result.found.responses[i]:.2f}" for i in result.order]
    return captioned_grid(result.found.patterns[result.order], captions, SHEET_COLUMNS)


def _beside_images(result: Result) -> Image.Image:
    images, captions = [], []
    for i in result.order[:SHOWN_MAPS]:
        best = np.argsort(-result.image_responses[:, i], kind="stable")[:SHOWN_IMAGES]
        images += [result.found.patterns[i], *(result.images[best] / np.float32(255))]
        captions.append(f"{result.maps[i]}: {result.found.responses[i]:.2f}")
        captions += [f"{result.image_responses[k, i]:.2f}" for k in best]
    columns = len(images) // len(result.order[:SHOWN_MAPS])
    return captioned_grid(np.stack(images), captions, columns)


def _several_seeds(result: Result) -> Image.Image:
    patterns = np.stack([found.patterns for found in result.by_seed], axis=1)  # [M, S, H, W, C]
    captions = [
        f"{index}: {found.responses[row]:.2f}"
        for row, index in enumerate(result.maps[result.order[:SHOWN_MAPS]])
        for found in result.by_seed
    ]
    return captioned_grid(patterns.reshape(-1, *patterns.shape[2:]), captions, len(result.by_seed))

"""The patterns that excite the maps of a layer, and what test images do to the same maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from vae_jax.config import is_classifier
from vae_jax.data.batches import to_unit_range
from vae_jax.data.splits import first_images
from vae_jax.models.blocks import layer_features
from vae_jax.report.charts import drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table
from vae_jax.report.pictures import GAP, MIN_SHOWN_HEIGHT, to_uint8
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


class Settings(NamedTuple):
    """How the patterns of a layer are looked for.

    Attributes:
        start: 'noise' at `scales`, or 'fourier'.
        scales: cells across the image, coarse to fine; see `starts.noise_images`.
        weights: of the scales; None for equal ones.
        strategy: 0 evolves the whole superposition; 1 evolves noise at the first scale and then
            enriches the pattern with the noise of one scale after another.
        steps: the most steps, for strategy 1 of each scale.
        precursors: so many starts are tried, and each map gets the one it responds to most.
        ascent: step and convergence.
    """

    start: str = "noise"
    scales: tuple[int, ...] = SCALES
    weights: tuple[float, ...] | None = None
    strategy: int = LOOP
    steps: tuple[int, ...] = LOOP_STEPS
    precursors: int = 64
    ascent: Ascent = DEFAULT_ASCENT


def candidate_starts(settings: Settings, image_shape: Shape, seed: int) -> jax.Array:
    """Starts `[S, P, H, W, C]` of P precursors, for each of the S stages of the strategy.

    Raises:
        UserError: settings that do not fit together or do not fit the image.
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
        layer: see `LayerFn`.
        candidates: `[P, H, W, C]` start images.
        maps: `[M]` indices of feature maps.
        projection: to the model's input.

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
        layer: see `LayerFn`.
        image_shape: `(H, W, C)`.
        maps: `[M]` indices of feature maps.
        projection: to the model's input.
        settings: how.
        seed: of the starts.

    Raises:
        UserError: settings that do not fit together or do not fit the image.
    """
    candidates = candidate_starts(settings, image_shape, seed)
    return candidates[:, best_starts(layer, candidates[0], maps, projection)]


def logarithmic_steps(total: int) -> tuple[int, ...]:
    """Returns 0, 1, 2, 4, 8, ... and `total`."""
    return (0, *(2**k for k in range(total.bit_length()) if 2**k < total), total)


def spectral_agreement(patterns: np.ndarray) -> tuple[float, float]:
    """Returns how alike patterns from different seeds are, wherever in the image the motif lies.

    Args:
        patterns: `[R, S, H, W, C]`, R maps from S seeds each; both at least 2.

    Returns:
        Mean correlation of the Fourier amplitudes (frequency 0 left out) between seeds of the
        same map, and between different maps.
    """
    maps, seeds = patterns.shape[:2]
    amplitudes = np.abs(np.fft.fft2(patterns, axes=(2, 3))).astype(np.float64)
    flat = amplitudes.reshape(maps * seeds, -1, patterns.shape[-1])[:, 1:].reshape(maps * seeds, -1)
    correlation = np.atleast_2d(np.corrcoef(flat))
    owner = np.repeat(np.arange(maps), seeds)
    same = np.equal.outer(owner, owner)
    return (
        float(correlation[same & ~np.eye(len(owner), dtype=bool)].mean()),
        float(correlation[~same].mean()),
    )


def seconds_per_map(find: Callable[[np.ndarray], Excitation], count: int) -> tuple[float, float]:
    """Seconds a map takes when all are found together, and when found one after the other.

    Args:
        find: finds the patterns of the maps at these positions.
        count: how many maps there are.

    Returns:
        Both times, without compilation: every program is run once before it is timed.
    """

    def timed(groups: Sequence[np.ndarray]) -> float:
        find(groups[0])
        began = time.monotonic()
        for group in groups:
            find(group)
        return (time.monotonic() - began) / count

    positions = np.arange(count)
    return timed([positions]), timed(np.split(positions, count))


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
        """Finds the patterns of some maps, with the settings of this study."""
        seed = self.seed if seed is None else seed
        return find_patterns(self.layer, maps, self.projection, self.settings, seed, snapshots)

    def sentence(self) -> str:
        """Returns what came out, in a line."""
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


def open_layer(workdir: str, step: int | None, name: str, data: str | None = None) -> Layer:
    """Opens the layer `name` of the classifier or the encoder in `workdir`.

    Raises:
        UserError: no such run or layer; the sentence lists the valid layers.
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


def make_study(
    layer: Layer, maps: tuple[int, ...] | None, settings: Settings, seed: int, image_count: int
) -> Study:
    """Excites `maps` (all for None) and measures what the first test images do to them."""
    for index in maps or ():
        if not 0 <= index < layer.map_count:
            raise UserError(
                f"{layer.name} has no map {index}; valid are 0 to {layer.map_count - 1}"
            )
    indices = np.arange(layer.map_count) if maps is None else np.asarray(maps)
    test = run_splits(layer.run).test
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


SHEET_COLUMNS = 12
SHOWN_MAPS = 10  # rows of the pictures that compare
SHOWN_IMAGES = 8
CAPTION_HEIGHT = 13
CHARACTER_WIDTH = 6  # of PIL's built-in font


def captioned_grid(images: np.ndarray, captions: Sequence[str], columns: int) -> Image.Image:
    """Lays images out row by row on white, each with a line of text below it.

    Small images are enlarged by a whole factor without smoothing.

    Args:
        images: `[N, H, W, C]`, uint8 or floats in [0, 1]; C is 1 or 3.
        captions: `[N]`, cut to the width of an image.
        columns: images a row.

    Returns:
        An RGB picture.
    """
    pixels = to_uint8(np.asarray(images))
    enlarge = max(1, -(-MIN_SHOWN_HEIGHT // pixels.shape[1]))
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    count, height, width, _ = pixels.shape
    cell = (height + CAPTION_HEIGHT + GAP, width + GAP)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * cell[1] + GAP, rows * cell[0] + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        left, top = GAP + (i % columns) * cell[1], GAP + (i // columns) * cell[0]
        sheet.paste(Image.fromarray(image), (left, top))
        text = caption[: width // CHARACTER_WIDTH]
        draw.text((left, top + height), text, fill="black")
    return sheet


def response_curves(curves: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Responses over steps, both axes as they are best read: steps logarithmic.

    Args:
        curves: `[T, M]`, response of M maps at T steps.
        names: `[M]`, for the legend.

    Returns:
        An RGB picture.
    """
    figure, ((axes,),) = new_chart(7, 4.5)
    for curve, name in zip(curves.T, names, strict=True):
        axes.plot(np.arange(1, len(curves) + 1), curve, linewidth=1, label=name)
    axes.set(xscale="log", xlabel="step", ylabel="mean activation of the map")
    if len(names) <= 12:
        axes.legend(fontsize="small")
    return drawn(figure)


def page(study: Study, evolve: int | None = None, seeds: int = 4) -> tuple[Page, dict[str, Any]]:
    """Returns the page of a layer's patterns, and the numbers on it.

    Args:
        study: Of `make_study`.
        evolve: The map to show evolving; the strongest by default.
        seeds: Side by side.

    Raises:
        UserError: `evolve` is not among the maps.
    """
    if evolve is not None and evolve not in study.maps:
        raise UserError(f"--evolve={evolve} is not among the maps {study.maps.tolist()}")
    numbers = _numbers(study)
    facts = study.layer.run.provenance | {"layer": study.layer.name, "seed": str(study.seed)}
    sections, agreement = [], None
    if len(study.order):
        strongest = int(study.maps[study.order[0]]) if evolve is None else evolve
        several, agreement = _several_seeds(study, seeds)
        numbers["spectral_agreement"] = agreement
        names = [f"map {m}" for m in study.maps[study.order]]
        pictures = {
            "All maps": ("filters", _sheet(study), "Every map that responds, strongest first; "
                         "below each its number and mean activation."),
            "From start to end": ("evolution", _evolution(study, strongest),
                                  f"Map {strongest} after 0, 1, 2, 4, ... steps."),
            "Responses": ("curves", response_curves(study.found.curves[:, study.order], names),
                          "Mean activation of each map before each step."),
            "Beside test images": ("images", _beside_images(study), "A row per map: its pattern, "
                                   "then the test images that excite it most."),
            "From several seeds": ("seeds", several, "A row per map, a column per seed of the "
                                   "start: what stays is the map's, what changes is chance."),
        }  # fmt: skip
        for heading, (name, image, caption) in pictures.items():
            sections.append(Section(heading, pictures=[Picture(name, image, caption)]))
    sections.append(Section("Numbers", tables=[_map_table(numbers["maps"])]))
    lead = (
        "Gradient ascent on the image finds what a feature map responds to most; a pattern has the "
        f"mean and the contrast of the data's images. {study.sentence()}."
    )
    if agreement is not None:
        lead += (
            f" Fourier amplitudes from different seeds correlate by {agreement['same_map']:.2f} "
            f"for one map and by {agreement['other_maps']:.2f} between maps."
        )
    return Page(f"Filters of {study.layer.name}", lead, sections, facts), numbers


def _map_table(maps: list[dict[str, Any]]) -> Table:
    rows = [
        [str(m["map"]), f"{m['response']:.3f}", f"{m['best_test_response']:.3f}",
         str(m["steps"]), "yes" if m["converged"] else "no"]
        for m in maps
    ]  # fmt: skip
    header = ("map", "response", "best test image", "steps", "converged")
    return Table(header, rows, "Mean activation of the map for its pattern and for the test image "
                 "that excites it most.")  # fmt: skip


def _numbers(study: Study) -> dict[str, Any]:
    found, best = study.found, study.image_responses.argmax(axis=0)
    maps = [
        {
            "map": int(study.maps[i]),
            "response": float(found.responses[i]),
            "loss": -float(found.responses[i]),
            "steps": int(found.steps[i]),
            "converged": bool(found.converged[i]),
            "best_test_image": int(best[i]),
            "best_test_response": float(study.image_responses[best[i], i]),
        }
        for i in study.order
    ]
    settings = study.settings._asdict() | {"ascent": study.settings.ascent._asdict()}
    projection = study.projection._asdict()
    return {"settings": settings, "projection": projection, "maps": maps, "dead": study.dead}


def _sheet(study: Study) -> Image.Image:
    captions = [f"{study.maps[i]}: {study.found.responses[i]:.2f}" for i in study.order]
    return captioned_grid(study.found.patterns[study.order], captions, SHEET_COLUMNS)


def _evolution(study: Study, index: int) -> Image.Image:
    steps = logarithmic_steps(sum(study.settings.steps))
    found = study.find([index], snapshots=steps)
    return captioned_grid(found.snapshots[:, 0], [f"step {step}" for step in steps], len(steps))


def _beside_images(study: Study) -> Image.Image:
    images, captions = [], []
    for i in study.order[:SHOWN_MAPS]:
        best = np.argsort(-study.image_responses[:, i], kind="stable")[:SHOWN_IMAGES]
        images += [study.found.patterns[i], *(study.images[best] / np.float32(255))]
        captions.append(f"{study.maps[i]}: {study.found.responses[i]:.2f}")
        captions += [f"{study.image_responses[k, i]:.2f}" for k in best]
    return captioned_grid(np.stack(images), captions, len(images) // len(study.order[:SHOWN_MAPS]))


def _several_seeds(study: Study, seeds: int) -> tuple[Image.Image, dict[str, float] | None]:
    maps = study.maps[study.order[:SHOWN_MAPS]]
    found = [study.find(maps, study.seed + k) for k in range(seeds)]
    patterns = np.stack([one.patterns for one in found], axis=1)  # [R, S, H, W, C]
    captions = [
        f"{index}: {found[k].responses[row]:.2f}"
        for row, index in enumerate(maps)
        for k in range(seeds)
    ]
    picture = captioned_grid(patterns.reshape(-1, *patterns.shape[2:]), captions, seeds)
    if len(maps) < 2:
        return picture, None
    same, other = spectral_agreement(patterns)
    return picture, {"same_map": same, "other_maps": other}

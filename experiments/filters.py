"""Find the input patterns that excite the feature maps of a layer, of a classifier or an encoder.

python -m experiments.filters --workdir=runs/classifier_mnist --layer=conv_2 --maps=all --seed=5

Writes index.html, its pictures and results.json to WORKDIR/filters-LAYER: a sheet of all maps
ordered by response, how one evolves, the strongest maps from several seeds, and test images that
excite the same map most. A pattern has the mean and the contrast of the data's images and is
clipped to [0, 1], the range the models are trained on.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.run_flags import STEP, WORKDIR
from vae_jax.types import UserError

MAX_STEPS = 100_000

_DATA = command_line.data()
_LAYER = flags.DEFINE_string("layer", None, "conv_0, conv_1, ...", required=True)
_MAPS = flags.DEFINE_string("maps", "all", "all, or numbers: 0,5,7.")
_SEED = command_line.seed("Seed of the start images.")
_SEEDS = command_line.count("seeds", 4, "Seeds side by side.", low=2, high=100)
_OUT = command_line.out_below("filters-{layer}", "the page")
_EVOLVE = flags.DEFINE_integer("evolve", None, "Map to show evolving; the strongest by default.")
_START = flags.DEFINE_enum("start", "noise", ["noise", "fourier"], "Kind of the start images.")
_SCALES = flags.DEFINE_list("scales", "3,7,14,0", "Noise cells across the image; 0: one per pixel.")
_WEIGHTS = flags.DEFINE_list("weights", None, "Weights of the scales; equal by default.")
_STRATEGY = flags.DEFINE_enum("strategy", "0", ["0", "1"], "0: one loop; 1: scale by scale.")
_STEPS = flags.DEFINE_list(
    "steps", None, f"Largest number of steps, for strategy 1 of each scale; up to {MAX_STEPS:,}."
)
_PRECURSORS = command_line.count("precursors", 64, "Starts tried for each map.", high=100_000)
_EPSILON = flags.DEFINE_float(
    "epsilon", 0.01, "Size of a step, in standard deviations.", lower_bound=1e-6, upper_bound=1e3
)
_IMAGES = command_line.count("images", 10_000, "Test images to compare with.")
_TIME = flags.DEFINE_bool("time", False, "Also time all maps at once against one by one.")


def main() -> None:
    """Finds the patterns and writes the page."""
    from vae_jax.studies import filters
    from vae_jax.studies.excitation import Ascent

    strategy = int(_STRATEGY.value)
    settings = filters.Settings(
        start=_START.value,
        scales=command_line.numbers(_SCALES, int),
        weights=command_line.numbers(_WEIGHTS, float) if _WEIGHTS.value else None,
        strategy=strategy,
        steps=_steps(strategy),
        precursors=_PRECURSORS.value,
        ascent=Ascent(_EPSILON.value),
    )
    layer = filters.open_layer(WORKDIR.value, STEP.value, _LAYER.value, _DATA.value)
    maps = None if _MAPS.value == "all" else command_line.numbers(_MAPS, int)
    options = filters.Options(
        maps, _SEED.value, _SEEDS.value, _EVOLVE.value, _IMAGES.value, settings
    )
    result = filters.measure(layer, options)
    written = publish.publish(filters.page(result), result.numbers, _OUT.value, tables=False)
    if _TIME.value:
        print(filters.timing_sentence(result))
    other = {"workdir": WORKDIR.value, "layer": _LAYER.value, "seed": _SEED.value + 1}
    command_line.tell(written, "filters", **other)


def _steps(strategy: int) -> tuple[int, ...]:
    from vae_jax.studies import filters

    if not _STEPS.value:
        return filters.SCALE_STEPS if strategy else filters.LOOP_STEPS
    steps = command_line.numbers(_STEPS, int)
    if not all(1 <= step <= MAX_STEPS for step in steps):
        raise UserError(f"--steps={','.join(_STEPS.value)}: each must be from 1 to {MAX_STEPS:,}")
    return steps


if __name__ == "__main__":
    app.run(main)

"""Find the input patterns that excite the feature maps of a layer, of a classifier or an encoder.

python -m experiments.filters --workdir=runs/classifier_mnist --layer=conv_2 --maps=all \
    --seed=5 --out=filters.png

Besides OUT, a sheet of all maps ordered by response, it writes OUT with -evolution, -curves,
-seeds (the strongest maps from several seeds) and -images (test images that excite the same map
most) in its name, and the numbers as OUT with .json. A pattern has the mean and the contrast of
the data's images and is clipped to [0, 1], the range the models are trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.filters.excitation import Ascent
from vae_jax.filters.layer import make_study, open_layer, timing_sentence
from vae_jax.filters.starts import SCALES
from vae_jax.filters.study import LOOP_STEPS, SCALE_STEPS, STARTS, Settings
from vae_jax.pages.filters import write_pages
from vae_jax.types import UserError

_LAYER = flags.DEFINE_string("layer", None, "conv_0, conv_1, ...")
_MAPS = flags.DEFINE_string("maps", "all", "all, or numbers: 0,5,7.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the start images.", lower_bound=0)
_SEEDS = flags.DEFINE_integer("seeds", 4, "Seeds side by side.", lower_bound=2)
_OUT = flags.DEFINE_string("out", "filters.png", "Picture to write.")
_EVOLVE = flags.DEFINE_integer("evolve", None, "Map to show evolving; the strongest by default.")
_START = flags.DEFINE_enum("start", STARTS[0], STARTS, "Kind of the start images.")
_SCALES = flags.DEFINE_list("scales", list(map(str, SCALES)), "Noise cells across; 0: full size.")
_WEIGHTS = flags.DEFINE_list("weights", None, "Of the scales; equal by default.")
_STRATEGY = flags.DEFINE_enum("strategy", "0", ["0", "1"], "0: one loop; 1: scale by scale.")
_STEPS = flags.DEFINE_list("steps", None, "Most steps; for strategy 1 of each scale.")
_PRECURSORS = flags.DEFINE_integer("precursors", 64, "Starts tried for each map.", lower_bound=1)
_EPSILON = flags.DEFINE_float("epsilon", Ascent().epsilon, "Step, in standard deviations.")
_IMAGES = flags.DEFINE_integer("images", 10_000, "Test images to compare with.", lower_bound=1)
_TIME = flags.DEFINE_bool("time", False, "Also time all maps at once against one by one.")


def main() -> None:
    """Find the patterns and write the pages."""
    strategy = int(_STRATEGY.value)
    steps = SCALE_STEPS if strategy else LOOP_STEPS
    settings = Settings(
        start=_START.value,
        scales=_numbers("scales", _SCALES.value, int),
        weights=_numbers("weights", _WEIGHTS.value, float) if _WEIGHTS.value else None,
        strategy=strategy,
        steps=_numbers("steps", _STEPS.value, int) if _STEPS.value else steps,
        precursors=_PRECURSORS.value,
        ascent=Ascent(_EPSILON.value),
    )
    if min(settings.steps) < 1 or not settings.ascent.epsilon > 0:
        raise UserError("--steps and --epsilon must be above 0")
    layer = open_layer(WORKDIR.value, STEP.value, _LAYER.value)
    maps = None if _MAPS.value == "all" else _numbers("maps", _MAPS.value.split(","), int)
    study = make_study(layer, maps, settings, _SEED.value, _IMAGES.value)
    paths = write_pages(study, Path(_OUT.value), _EVOLVE.value, _SEEDS.value)
    for path in paths:
        print(f"wrote {path}")
    print(study.sentence())
    if _TIME.value:
        print(timing_sentence(study))


def _numbers(flag: str, texts: list[str], kind: type) -> tuple:
    try:
        numbers = tuple(kind(text) for text in texts)
    except ValueError:
        raise UserError(f"--{flag}={','.join(texts)} is not a list of numbers") from None
    if not np.isfinite(numbers).all():
        raise UserError(f"--{flag}={','.join(texts)} has an entry that is not finite")
    return numbers


if __name__ == "__main__":
    flags.mark_flag_as_required("layer")
    app.run(main)

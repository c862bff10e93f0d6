"""The spaces of features in which two sets of images are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vae_jax.metrics.feature_distances import pixels, small_pixels
from vae_jax.models.vae import VAE
from vae_jax.run import Run, classifier_features, encode, open_judge
from vae_jax.types import UserError

# Names of the spaces, and their titles on pages.
SPACES = {
    "encoder_mean": "this model's encoder",
    "pixels_8x8": "8 x 8 pixels",
    "pixels": "all pixels",
    "classifier": "classifier",
}
USUAL = ("encoder_mean", "pixels_8x8")
Space = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def feature_spaces(
    run: Run[VAE], wanted: Sequence[str] = USUAL, classifier: str = ""
) -> dict[str, Space]:
    """Returns feature spaces by name: functions of images `[N, H, W, C]` and labels.

    `encoder_mean` belongs to the model that is judged: directions that its encoder ignores do not
    count, so that models cannot be ranked by it. The others are the same for every model of the
    same data.

    Args:
        run: The model that is judged.
        wanted: Names of `SPACES`.
        classifier: Run folder of a classifier, which adds its space; empty for none.

    Raises:
        UserError: An unknown space, or 'classifier' without the run folder of a classifier.
    """
    names = (*wanted, "classifier") if classifier else tuple(wanted)
    unknown = [name for name in names if name not in SPACES]
    if unknown or ("classifier" in names and not classifier):
        raise UserError(
            f"--features has {unknown[0]!r}; valid are {', '.join(SPACES)}"
            if unknown
            else "--features=classifier needs the run folder of a classifier: --classifier=FOLDER"
        )
    spaces: dict[str, Space] = {
        "encoder_mean": lambda images, labels: encode(run.model, run.variables, images, labels)[0],
        "pixels_8x8": lambda images, labels: small_pixels(images),
        "pixels": lambda images, labels: pixels(images),
    }
    if classifier:
        judge = open_judge(classifier, run.config.data)
        spaces["classifier"] = lambda images, labels: classifier_features(judge, images)
    return {name: spaces[name] for name in dict.fromkeys(names)}

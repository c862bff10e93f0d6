"""How well corrupted images are restored, compared with methods that need no training.

Where pixels are erased, the pixels that were kept may be copied from the input: they are then
copied for the model and for every other method alike. Total variation and non-local means
(scikit-image, if it is installed) get the strength that is best on training images corrupted in the
same way.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from vae_jax.data.inputs import Corruption, erased_pixels, evaluation_key, luminance
from vae_jax.metrics.image_quality import WINDOW, mse, ssim
from vae_jax.models.classifier import Classifier
from vae_jax.models.vae import VAE
from vae_jax.report.page import Page, Picture, Section, Table, plus_minus
from vae_jax.report.pictures import image_grid, paired_rows
from vae_jax.run import Run, in_batches, open_judge, predict
from vae_jax.subject import Subject, encode_subject, open_subject, reconstructions
from vae_jax.types import UserError

# Half a grey level: a smaller error counts as this one, so that PSNR is at most 54.2 dB.
MIN_MSE = (0.5 / 255.0) ** 2
MEAN_IMAGES = 10_000  # of the training split, at most
TUNING_IMAGES = 64  # of the training split, for the strength of a filter
TV_WEIGHTS = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
NLM_STRENGTHS = (0.05, 0.1, 0.2, 0.4, 0.8)
MEDIAN_SIZES = (3, 5)
GAUSSIAN_SIGMA, GAUSSIAN_REACH = 1.0, 3  # pixels
COLUMNS = 8
AS_MADE, KEPT, LUMINANCE = "as they come out", "kept pixels as they were", "luminance as it was"
MODEL, INPUT = "the model", "corrupted input"

Filter = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Options:
    """What is restored and judged.

    Attributes:
        count: Test images, at most; 0 for all.
        shown: Images in the picture.
        classifier: Run folder of a classifier of classes that judges the results; None for none.
    """

    count: int = 1000
    shown: int = 16
    classifier: str | None = None


@dataclass(frozen=True)
class Score:
    """How near restored images are to the clean ones; NaN if a figure does not apply.

    Attributes:
        psnr: Mean PSNR over images in dB; at most 54.2.
        psnr_reach: Half of the 95 % interval of that mean, over images.
        ssim: Mean SSIM over images; NaN for images smaller than its window.
        psnr_erased: Mean PSNR of the erased pixels alone, in dB.
        recognised: Share of images in which the classifier recognises the true class.
    """

    psnr: float
    psnr_reach: float
    ssim: float
    psnr_erased: float
    recognised: float = math.nan


@dataclass(frozen=True)
class Result:
    """What was restored, and how well.

    Attributes:
        facts: Checkpoint, corruption and count.
        options: The options.
        shown: Images `[M, H, W, C]` by name, one row of the picture each.
        scores: By what was kept of the input (`AS_MADE`, `KEPT`, `LUMINANCE`), scores by method.
        strengths: Strengths of the filters, chosen on training images.
        without: Which methods are missing because scikit-image is not installed; empty otherwise.
    """

    facts: dict[str, str]
    options: Options
    shown: dict[str, np.ndarray]
    scores: dict[str, dict[str, Score]]
    strengths: dict[str, float]
    without: str

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of results.json."""
        scores = {
            kept: {method: asdict(score) for method, score in methods.items()}
            for kept, methods in self.scores.items()
        }
        return {"options": asdict(self.options), "scores": scores, "strengths": self.strengths}


def measure(run: Run[VAE], options: Options) -> Result:
    """Restores test images, corrupted as in every evaluation of the run, by every method.

    Args:
        run: A run of a model that was trained on corrupted inputs.
        options: What to restore.

    Raises:
        UserError: The model was trained on clean inputs.
    """
    subject = open_subject(run, "test", options.count)
    corruption = subject.stage.corruption
    if corruption.is_off:
        raise UserError(f"{str(run.workdir)!r} was trained on clean inputs: nothing is restored")
    train = open_subject(run, "train", MEAN_IMAGES)
    mean_image = (train.images.mean(0, dtype=np.float64) / 255).astype(np.float32)
    seen, erased = encode_subject(subject), _erased(subject)
    restored = {MODEL: reconstructions(subject, seen, np.arange(len(seen.inputs)))}
    restored |= untrained(seen.inputs, erased, mean_image)
    tuning = open_subject(run, "train", TUNING_IMAGES)
    filters, strengths = _tuned_filters(tuning, mean_image), {}
    prepared = fill_erased(seen.inputs, erased, mean_image) if erased.any() else seen.inputs
    for name, (function, strength) in filters.items():
        restored[name], strengths[name] = function(prepared, strength), strength
    judge = _judge(run, options.classifier, subject) if options.classifier else None
    ways = {AS_MADE: restored}
    if erased.any():
        ways[KEPT] = {
            name: np.where(erased, images, seen.inputs) for name, images in restored.items()
        }
    elif corruption.grey:
        ways[LUMINANCE] = {MODEL: _with_luminance(restored[MODEL], seen.inputs)}
    classes = subject.split.labels
    scores = {
        kept: {name: score(x, seen.targets, erased, judge, classes) for name, x in methods.items()}
        for kept, methods in ways.items()
    }
    scores[AS_MADE]["clean images"] = score(seen.targets, seen.targets, erased, judge, classes)
    shown = {"clean": seen.targets, INPUT: seen.inputs, "restored": restored[MODEL]}
    shown |= {f"restored, {kept}": ways[kept][MODEL] for kept in ways if kept != AS_MADE}
    best = max(filters, key=lambda name: scores[AS_MADE][name].psnr, default=None)
    shown |= {best: restored[best]} if best else {}
    facts = run.provenance | {
        "corruption": str(corruption),
        "test images": f"{len(seen.inputs):,}",
    }
    shown = {name: images[: options.shown] for name, images in shown.items()}
    without = (
        ""
        if filters or not _is_noisy(corruption)
        else (
            "Total variation and non-local means are missing here: scikit-image is not installed."
        )
    )
    return Result(facts, options, shown, scores, strengths, without)


def _judge(run: Run[VAE], workdir: str, subject: Subject) -> Run[Classifier]:
    judge = open_judge(workdir, run.config.data)
    if judge.config.data.condition != "class" or judge.label_names != subject.split.label_names:
        raise UserError(
            f"the classifier in {workdir!r} knows {', '.join(judge.label_names)}, but these images "
            "have other classes: train one on the same classes"
        )
    return judge


def _erased(subject: Subject) -> np.ndarray:
    """Returns `[N, H, W, 1]` bool: pixels that were erased."""
    if not subject.stage.corruption.erases:
        return np.zeros((*subject.images.shape[:3], 1), bool)
    program = partial(_erased_program, subject.stage.corruption, subject.key)
    (erased,) = in_batches(program, subject.images, np.arange(len(subject.images)))
    return erased


@partial(jax.jit, static_argnums=0)
def _erased_program(
    corruption: Corruption, key: jax.Array, images: jax.Array, positions: jax.Array
) -> tuple[jax.Array]:
    return (erased_pixels(evaluation_key(key), images, corruption, positions[0]),)


def _with_luminance(restored: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    grey = np.asarray(luminance(jnp.asarray(restored)))
    return np.clip(restored - grey + inputs, 0, 1)


# Methods without training.


def untrained(
    inputs: np.ndarray, erased: np.ndarray, mean_image: np.ndarray
) -> dict[str, np.ndarray]:
    """Restores images by the methods that have no strength to choose.

    Args:
        inputs: `[N, H, W, C]`, corrupted.
        erased: `[N, H, W, 1]` bool.
        mean_image: `[H, W, C]`, mean of the training images.

    Returns:
        `[N, H, W, C]` by name of the method.
    """
    results = {INPUT: inputs, "mean image": np.broadcast_to(mean_image, inputs.shape)}
    for size in MEDIAN_SIZES:
        window = (1, size, size, 1)
        results[f"median filter {size}x{size}"] = ndimage.median_filter(
            inputs, window, mode="nearest"
        )
    if erased.any():
        results["mean of kept neighbours"] = fill_erased(inputs, erased, mean_image)
    return results


def fill_erased(inputs: np.ndarray, erased: np.ndarray, mean_image: np.ndarray) -> np.ndarray:
    """Replaces erased pixels by Gaussian-weighted means of the kept ones around them.

    This is normalised convolution (Knutsson & Westin 1993) with a sigma of one pixel and a window
    of 7 x 7 pixels; a window without any kept pixel gets the mean image.

    Args:
        inputs: `[N, H, W, C]`.
        erased: `[N, H, W, 1]` bool.
        mean_image: `[H, W, C]`.

    Returns:
        `[N, H, W, C]`; kept pixels do not change.
    """
    blur = partial(
        ndimage.gaussian_filter,
        sigma=GAUSSIAN_SIGMA,
        axes=(1, 2),
        radius=GAUSSIAN_REACH,
        mode="constant",
    )
    kept = (~erased).astype(np.float64)
    weight = blur(kept)
    mean = blur(inputs * kept) / np.maximum(weight, 1e-12)
    filled = np.where(weight > 1e-9, mean, mean_image[None])
    return np.where(erased, filled, inputs).astype(inputs.dtype)


def _is_noisy(corruption: Corruption) -> bool:
    """Returns whether there is something that a denoising filter could remove."""
    return bool(corruption.gaussian_sigma) or corruption.erases


def _tuned_filters(tuning: Subject, mean_image: np.ndarray) -> dict[str, tuple[Filter, float]]:
    """Returns filters of scikit-image and their best strengths on corrupted training images."""
    if importlib.util.find_spec("skimage") is None or not _is_noisy(tuning.stage.corruption):
        return {}
    seen, erased = encode_subject(tuning), _erased(tuning)
    inputs, suffix = seen.inputs, ""
    if erased.any():
        inputs, suffix = fill_erased(seen.inputs, erased, mean_image), " of filled images"
    candidates = {
        f"total variation{suffix}": (total_variation, TV_WEIGHTS),
        f"non-local means{suffix}": (non_local_means, NLM_STRENGTHS),
    }
    return {
        name: (function, best_strength(function, strengths, inputs, seen.targets))
        for name, (function, strengths) in candidates.items()
    }


def best_strength(
    function: Filter, strengths: tuple[float, ...], inputs: np.ndarray, clean: np.ndarray
) -> float:
    """Returns the strength whose results have the highest mean PSNR against clean images."""
    return max(strengths, key=lambda s: float(_decibels(function(inputs, s), clean).mean()))


def total_variation(images: np.ndarray, weight: float) -> np.ndarray:
    """Returns images `[N, H, W, C]` denoised by total variation (Chambolle 2004)."""
    from skimage.restoration import denoise_tv_chambolle

    done = [denoise_tv_chambolle(image, weight, channel_axis=-1) for image in images]
    return np.asarray(done, np.float32)


def non_local_means(images: np.ndarray, strength: float) -> np.ndarray:
    """Returns images `[N, H, W, C]` denoised by non-local means (Buades et al. 2005)."""
    from skimage.restoration import denoise_nl_means

    done = [
        denoise_nl_means(image, patch_size=5, patch_distance=6, h=strength, channel_axis=-1)
        for image in images
    ]
    return np.asarray(done, np.float32).reshape(images.shape)  # scikit-image drops C = 1.


# Scores.


def score(
    images: np.ndarray,
    clean: np.ndarray,
    erased: np.ndarray,
    judge: Run[Classifier] | None = None,
    classes: np.ndarray | None = None,
) -> Score:
    """Compares images with the clean ones.

    Args:
        images: `[N, H, W, C]` float32 in [0, 1].
        clean: The same.
        erased: `[N, H, W, 1]` bool.
        judge: A classifier, or None.
        classes: `[N]` true classes, for the classifier.
    """
    decibels, structure = _decibels(images, clean), math.nan
    if min(clean.shape[1:3]) >= WINDOW:
        (each,) = in_batches(lambda x, y: (ssim(x, y),), images, clean)
        structure = float(each.mean(dtype=np.float64))
    errors = np.mean(np.square(images - clean), axis=-1, keepdims=True)
    holes = erased.sum((1, 2, 3))
    has = holes > 0
    hidden = math.nan
    if has.any():
        means = (errors * erased).sum((1, 2, 3))[has] / holes[has]
        hidden = float(np.mean(-10 * np.log10(np.maximum(means, MIN_MSE))))
    reach = math.nan
    if len(decibels) > 1:
        reach = float(1.96 * decibels.std(ddof=1) / math.sqrt(len(decibels)))
    recognised = math.nan
    if judge is not None:
        recognised = float(np.mean(predict(judge, images).argmax(1) == classes))
    return Score(float(decibels.mean()), reach, structure, hidden, recognised)


def _decibels(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns `[N]`: PSNR of each image in dB, at most 54.2."""
    (errors,) = in_batches(lambda x, y: (mse(x, y),), images, clean)
    return -10.0 * np.log10(np.maximum(errors.astype(np.float64), MIN_MSE))


# The page.


def page(result: Result) -> Page:
    """Returns the page: a picture of restored images, and the scores of all methods."""
    images = list(result.shown.values())
    caption = (
        "From top to bottom: " + "; ".join(result.shown) + ". Look for strokes or features that "
        "the input has lost, and for what the model invents."
    )
    picture = Picture("restoration", image_grid(paired_rows(images, COLUMNS), COLUMNS), caption)
    sections = [Section("Test images", pictures=[picture])]
    for kept in sorted(result.scores, key=lambda name: name == AS_MADE):
        caption = (
            f"Results {kept}, for the model and for all other methods. Means over "
            f"{result.facts['test images']} test images; PSNR with the 95 % interval over images. "
        )
        if result.strengths:
            chosen = ", ".join(f"{n} {s:g}" for n, s in result.strengths.items())
            caption += f"Strengths were chosen on {TUNING_IMAGES} training images: {chosen}."
        table = score_table(result.scores[kept], caption)
        sections.append(Section(f"Results {kept}", result.without, tables=[table]))
    return Page("Restored test images", _lead(result), sections, result.facts)


def _lead(result: Result) -> str:
    kept = KEPT if KEPT in result.scores else AS_MADE
    scores = result.scores[kept]
    others = {n: s for n, s in scores.items() if n not in (MODEL, "clean images")}
    best = max(others, key=lambda name: others[name].psnr)
    model = scores[MODEL]
    both = "Its" if kept == AS_MADE else f"With {kept} on both sides its"
    return (
        f"The inputs are test images with {result.facts['corruption']}; the model returns what "
        f"they were. {both} images reach {_psnr(model)} dB, and those of the best method without "
        f"training, {best}, {_psnr(others[best])} dB; the input itself has {_psnr(others[INPUT])} "
        "dB. This is one trained model: the seed of its training is not varied here."
    )


def _psnr(score: Score) -> str:
    return plus_minus(score.psnr, score.psnr_reach, "{:.2f}")


def score_table(scores: dict[str, Score], caption: str) -> Table:
    """Returns one row per method, best PSNR first, and a column per figure that some have."""
    cells: dict[str, Callable[[Score], str]] = {
        "PSNR [dB]": _psnr,
        "SSIM": lambda s: "" if math.isnan(s.ssim) else f"{s.ssim:.3f}",
        "PSNR of erased pixels [dB]": lambda s: (
            "" if math.isnan(s.psnr_erased) else f"{s.psnr_erased:.2f}"
        ),
        "recognised": lambda s: "" if math.isnan(s.recognised) else f"{s.recognised:.2%}",
    }
    used = [name for name, cell in cells.items() if any(cell(s) for s in scores.values())]
    ranked = sorted(scores, key=lambda name: -scores[name].psnr)
    rows = [[method, *(cells[name](scores[method]) for name in used)] for method in ranked]
    return Table(["", *used], rows, caption)

"""Measures every finished member of a sweep: its figures on held-out images, and its samples.

Everything that is drawn by chance follows from the member's own seed: the latent points, the
images that samples are compared with, patches and directions. Members of one seed share these
draws, so that they can be compared in pairs; members of different seeds share none.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from vae_jax import config as configs
from vae_jax.data.splits import Splits, condition_labels, piece_of
from vae_jax.files import json_bytes, write_file
from vae_jax.metrics import linear_vae, posterior
from vae_jax.metrics.feature_distances import FEWEST, compare_features, small_pixels
from vae_jax.metrics.image_quality import psnr
from vae_jax.metrics.sliced_wasserstein import FEWER, sliced_wasserstein
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import KINDS, Prior, codes_of, draw, fit_prior, normal_prior
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.run import Run, classifier_features, decode, open_judge, open_run
from vae_jax.run_folder import read_rows
from vae_jax.streams import make_key
from vae_jax.studies.sweep_results import (
    CURVES,
    FIGURES_SCHEMA,
    SCHEMA,
    Figures,
    MeasuredMember,
    MeasuredSweep,
    checked,
    in_order,
)
from vae_jax.subject import LabelledImages, encode_subject, make_subject
from vae_jax.train.sweep import Member, SweepResult, member_folder, read_record
from vae_jax.types import ImageSet, UserError

FIGURES_FILE = "figures.json"  # what was measured of a member, in its folder
# At most; samples are compared with half of the images of a split, chosen by the seed.
COMPARED_IMAGES = 1024
SPECTRUM_IMAGES = 4000  # training images that a linear VAE is fitted to
PIECE = 1024  # images decoded at a time; a multiple of the batch that encoding is compiled for
SHOWN_SAMPLES, SHOWN_TEST_IMAGES, COLUMNS = 16, 8, 4
FROM_ROW = ("loss", "kl_weighted", "kl", "beta", "kl_share", "kl_share_above_floor", "elbo",
            "log_density_bound", "entropy_floor")  # fmt: skip
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

Space = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """What every member is compared by.

    Attributes:
        classifier: Run folder of a classifier of the same images, in whose features samples are
            compared too; None for none.
        priors: Kinds of `priors.fitted.KINDS` that are fitted to the codes of every member; samples
            are drawn from each of them as from N(0, I).
    """

    classifier: str | None = None
    priors: tuple[str, ...] = ("gaussian",)

    def __post_init__(self) -> None:
        for kind in self.priors:
            if kind not in KINDS:
                raise UserError(f"--priors has {kind!r}; valid are {', '.join(KINDS)}")


def measure(
    config: ConfigDict,
    workdir: str | Path,
    result: SweepResult,
    splits: Splits,
    options: Options,
    say: Callable[[str], None] = print,
) -> MeasuredSweep:
    """Measures every finished member of a sweep and draws its samples and reconstructions.

    A member's figures are kept in its folder and measured again only after more training.

    Args:
        config: Config of the sweep.
        workdir: Folder of the sweep.
        result: Outcome of the training.
        splits: The data.
        options: What to compare members by.
        say: Called with one line per member.

    Raises:
        UserError: A run that cannot be opened, or a classifier of other images.
    """
    began, workdir = time.monotonic(), Path(workdir)
    spaces: dict[str, Space] = {"pixels": small_pixels}
    if options.classifier:
        judge = open_judge(options.classifier, config.data, splits.digest)
        spaces["classifier"] = partial(classifier_features, judge)
    key = {"schema": SCHEMA} | asdict(options) | {"priors": list(options.priors)}
    # All members of one seed have the same floor.
    floor = cache(lambda seed: floor_figures(splits.test, splits.train, seed, spaces))
    measured, spectrum, loss = [], None, config.loss
    if loss.likelihood in linear_vae.LIKELIHOODS:
        some = np.arange(min(len(splits.train), SPECTRUM_IMAGES))
        spectrum = linear_vae.image_spectrum(splits.train.take(some))
    for number, member in enumerate(result.members, start=1):
        found = _measured(member, workdir, result, splits, spaces, key, floor)
        beta = found.test.get("beta")
        if spectrum is not None and beta:
            linear = linear_vae.forecast(spectrum, found.z_dim, beta, loss.likelihood, loss.sigma)
            found.test.update({f"linear_{name}": value for name, value in linear.items()})
        measured.append(found)
        say(f"measured {number}/{len(result.members)}: {member.name}, {found.status}")
    return MeasuredSweep(
        workdirs=(str(workdir),),
        config=config,
        images=image_counts(splits),
        facts=origin(config)
        | {
            "classifier": options.classifier or "none",
            "priors fitted to the codes": ", ".join(options.priors) or "none",
        },
        seconds={
            "training": sum(member.seconds for member in measured),
            "measuring": time.monotonic() - began,
        },
        differences={},
        members=in_order(measured),
    )


def image_counts(splits: Splits) -> dict[str, int]:
    """Returns the numbers of images in the splits, and of those compared with samples on test."""
    return {
        "train": len(splits.train),
        "validation": 0 if splits.validation is None else len(splits.validation),
        "test": len(splits.test),
        "compared": _compared_count(splits.test, splits.train),
    }


def origin(config: ConfigDict) -> dict[str, str]:
    """Returns when, where, with which versions and of which config something was measured."""
    device = jax.devices()[0]
    packages = [f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]
    return {
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "versions": ", ".join(packages),
        "config digest": configs.digest(config),
    }


def _measured(
    member: Member,
    workdir: Path,
    result: SweepResult,
    splits: Splits,
    spaces: Mapping[str, Space],
    key: Mapping[str, Any],
    floor: Callable[[int], Figures],
) -> MeasuredMember:
    folder, outcome = member_folder(workdir, member), result.outcomes[member.name]
    digest = configs.digest(member.config)
    measured: dict[str, Any] = {"test": {}, "validation": {}, "kl_per_dimension": []}
    if outcome.status == "finished":
        key = dict(key) | {"step": outcome.step, "config_digest": digest}
        kept = _kept_figures(folder / FIGURES_FILE, key)
        if kept is None:
            run = open_run(folder, outcome.step)
            measured = measure_member(run, splits, spaces, key["priors"])
            measured["test"] |= floor(member.config.seed)
            write_file(folder / FIGURES_FILE, json_bytes({"key": key} | measured))
        else:
            measured = kept
    return MeasuredMember(
        name=member.name,
        **member.values(),
        **outcome._asdict(),
        seconds=read_record(folder).get("seconds", 0.0),
        config_digest=digest,
        curves=_curves(folder),
        **measured,
        folder=folder,
    )


def _kept_figures(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what was measured of a member with this key before; None if nothing was."""
    try:
        kept = json.loads(path.read_bytes())
        if kept.pop("key") == key:
            return checked(kept, FIGURES_SCHEMA, path.name)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass
    return None


def _curves(folder: Path) -> dict[str, dict[str, list[float | None]]]:
    curves: dict[str, dict[str, list[float | None]]] = {}
    for row in read_rows(folder):
        split = curves.setdefault(row["split"], {name: [] for name in ("epoch", *CURVES)})
        for name, values in split.items():
            values.append(row.get(name))
    return curves


def measure_member(
    run: Run[VAE], splits: Splits, spaces: Mapping[str, Space], kinds: Sequence[str] = ()
) -> dict[str, Any]:
    """Measures a model on test and validation images, and draws samples and reconstructions.

    Writes into the run folder samples.png (decoded points of N(0, I), of the run's seed), the same
    for every fitted prior, and reconstructions.png (test images, each above the decoded mean of its
    posterior).

    Args:
        run: The model.
        splits: Splits of its data.
        spaces: Feature spaces that do not depend on the model, by name.
        kinds: Kinds of priors that are fitted to its codes.

    Returns:
        `test`, `validation` and `kl_per_dimension`, see `MeasuredMember`.

    Raises:
        UserError: The run has no row of the test split, or posteriors that are not finite.
    """
    seed, train = run.config.seed, splits.train
    rows = {name: _last_row(run, name) for name in ("test", "validation")}
    figures, real, (mean, log_var), shown = held_out_figures(run, splits, rows)
    test = figures["test"]
    test |= posterior_figures(mean, log_var, seed)
    codes = codes_of(run, train, seed)
    judging = None if splits.validation is None else codes_of(run, splits.validation, seed)
    priors = [fit_prior(kind, codes, judging, seed) for kind in kinds]
    pictures = {"reconstructions": paired_rows(list(shown), COLUMNS)}
    for prior in (normal_prior(run.model.z_dim, len(run.label_names)), *priors):
        suffix = f"_{prior.name}" if prior in priors else ""
        fake = prior_samples(run, prior, real)
        pictures[f"samples{suffix}"] = fake.pop("shown")
        for name, samples in fake.items():
            found = set_figures(real[name].images, samples, seed, spaces)
            figures[name] |= {f"{figure}{suffix}": value for figure, value in found.items()}
    images = real["test"].images  # Compared with the codes of the floor's training images.
    chosen = chosen_rows(train, len(images), seed)
    labels = None if codes.labels is None else codes.labels[chosen]
    decoded = decode(run.model, run.variables, codes.z[chosen], labels)
    found = set_figures(images, decoded, seed, spaces)
    test |= {f"{name}_codes": value for name, value in found.items()}
    for name, pixels in pictures.items():
        facts = run.provenance | {"seed": str(seed)}
        save_png(run.workdir / f"{name}.png", image_grid(pixels, COLUMNS), facts)
    return figures | {"kl_per_dimension": posterior.kl_per_dimension(mean, log_var).tolist()}


def _real_images(run: Run[VAE], split: ImageSet, train: ImageSet) -> LabelledImages:
    rows = chosen_rows(split, _compared_count(split, train), run.config.seed)
    labels = condition_labels(run.config.data, split)
    return LabelledImages(split.take(rows), None if labels is None else labels[rows])


def _last_row(run: Run[VAE], name: str) -> dict[str, Any]:
    rows = [row for row in read_rows(run.workdir) if row["split"] == name]
    if not rows and name == "test":
        raise UserError(f"{run.workdir} has no evaluation in its metrics; train it to the end")
    return rows[-1] if rows else {}


TwoArrays = tuple[np.ndarray, np.ndarray]


def held_out_figures(
    run: Run[VAE], splits: Splits, rows: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Figures], dict[str, LabelledImages], TwoArrays, TwoArrays]:
    """Returns the figures of a model on test and validation images that need no samples.

    Args:
        run: The model.
        splits: Splits of its data.
        rows: What was logged of each split, see `train.rows.complete_row`; perhaps nothing.

    Returns:
        By split, figures of the row and the PSNR of reconstructions, empty without the split; by
        split, the images that samples are to be compared with; mean and log_var `[N, Z]` of test
        images; the first test images and their reconstructions.
    """
    test, codes, shown = _split_figures(run, splits.test, rows["test"])
    figures, real = {"test": test, "validation": {}}, {}
    real["test"] = _real_images(run, splits.test, splits.train)
    if splits.validation is not None:
        figures["validation"] = _split_figures(run, splits.validation, rows["validation"])[0]
        real["validation"] = _real_images(run, splits.validation, splits.train)
    return figures, real, codes, shown


def _split_figures(
    run: Run[VAE], split: ImageSet, row: Mapping[str, Any]
) -> tuple[Figures, TwoArrays, TwoArrays]:
    figures = {known: row[known] for known in FROM_ROW if known in row}
    if "recon_nats" in row:
        figures["recon"] = row["recon_nats"]
    codes, decibels, shown = [], [], []
    for start in range(0, len(split), PIECE):
        subject = make_subject(run, piece_of(split, start, PIECE))
        seen = encode_subject(subject, first=start)
        decoded = decode(run.model, run.variables, seen.mean, subject.labels)
        codes.append((seen.mean, seen.log_var))
        decibels.append(
            np.asarray(psnr(jnp.asarray(seen.targets), jnp.asarray(decoded)), np.float64)
        )
        shown = shown or [seen.targets[:SHOWN_TEST_IMAGES], decoded[:SHOWN_TEST_IMAGES]]
    mean, log_var = (np.concatenate(parts) for parts in zip(*codes, strict=True))
    figures["psnr"] = _finite(float(np.concatenate(decibels).mean()))
    return figures, (mean, log_var), (shown[0], shown[1])


def posterior_figures(mean: np.ndarray, log_var: np.ndarray, seed: int) -> Figures:
    """Returns figures of the aggregate posterior: active units, radii of draws, covariance.

    Args:
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` logarithms of the posterior variances.
        seed: Seed of the draws of the posterior.
    """
    z = np.asarray(posterior.sample(mean, log_var, make_key(seed)), np.float64)
    moments = posterior.moments(mean, log_var)
    spectrum = posterior.spectrum(moments.covariance)
    radii = np.linalg.norm(z, axis=1)
    prior = stats.chi(mean.shape[1])
    return {
        "active_units": int(posterior.active_units(mean).sum()),
        "radius_mean": float(radii.mean()),
        "radius_std": float(radii.std()),
        "radius_prior_mean": float(prior.mean()),
        "radius_prior_std": float(prior.std()),
        "offset_norm": float(np.linalg.norm(moments.offset)),
        "covariance_largest": float(spectrum[0]),
        "covariance_median": float(np.median(spectrum)),
        "covariance_smallest": float(spectrum[-1]),
        # (sum l)^2 / sum l^2: how many equal directions would be as spread out.
        "effective_dimensions": float(spectrum.sum() ** 2 / np.square(spectrum).sum()),
    }


def _compared_count(split: ImageSet, train: ImageSet) -> int:
    """Returns the number of images of a split that are compared with as many samples."""
    half = max(len(split) // 2, min(len(split), FEWEST))
    return min(half, len(train), COMPARED_IMAGES)


def chosen_rows(split: ImageSet, count: int, seed: int) -> np.ndarray:
    """Returns the positions `[count]` of the images of a split that a seed chooses."""
    return np.sort(np.random.default_rng(seed).permutation(len(split))[:count])


def prior_samples(
    run: Run[VAE], prior: Prior, real: Mapping[str, LabelledImages]
) -> dict[str, Any]:
    """Decodes points of a prior.

    Args:
        run: The model.
        prior: The prior.
        real: By split, images that samples are to be compared with.

    Returns:
        By split, as many samples `[N, H, W, C]` as images, with the same labels; and `shown`, the
        first ones.
    """
    count, parts = 0, {"shown": slice(SHOWN_SAMPLES)}
    for name, (images, _) in real.items():
        # Each split has its own points, so that the choice on validation is independent of test.
        parts[name] = slice(count, count + len(images))
        count += len(images)
    count, labels = max(count, SHOWN_SAMPLES), None
    conditions = [labels for _, labels in real.values() if labels is not None]
    if conditions:
        labels = np.resize(np.concatenate(conditions), (count, len(run.label_names)))
    z = draw(prior, run.config.seed, count, labels=labels)
    return {
        name: decode(run.model, run.variables, z[part], None if labels is None else labels[part])
        for name, part in parts.items()
    }


def floor_figures(
    split: ImageSet, train: ImageSet, seed: int, spaces: Mapping[str, Space]
) -> Figures:
    """Returns `set_figures` of training images in place of samples, named with `_floor`.

    These are what a perfect model would reach with as many samples and the same draws.
    """
    count = _compared_count(split, train)
    real, other = (part.take(chosen_rows(part, count, seed)) for part in (split, train))
    return {f"{name}_floor": v for name, v in set_figures(real, other, seed, spaces).items()}


def set_figures(
    real: np.ndarray, fake: np.ndarray, seed: int, spaces: Mapping[str, Space]
) -> Figures:
    """Compares two sets of images in spaces that are the same for every model.

    Args:
        real: `[N, H, W, C]` uint8, or float in [0, 1].
        fake: `[N, H, W, C]` uint8, or float in [0, 1].
        seed: Seed of patches and directions.
        spaces: Feature spaces by name.

    Returns:
        `sliced_wasserstein`, and for each space NAME_frechet (squared distance), NAME_precision,
        NAME_recall, NAME_density and NAME_coverage; for fewer than 8 images the first one alone.
    """
    figures: Figures = {
        "sliced_wasserstein": sliced_wasserstein(
            real, fake, make_key(seed), keep_contrast=False, **FEWER
        )["mean"]
    }
    if len(real) < FEWEST:
        return figures
    for space, features in spaces.items():
        for name, value in compare_features(features(real), features(fake)).items():
            figures[f"{space}_{name.removesuffix('_distance')}"] = _finite(value)
    return figures


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

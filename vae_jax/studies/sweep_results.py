"""Measures every member of a sweep and reads what was measured: the numbers of the ablation.

Everything that is drawn by chance follows from the member's own seed: the latent points, the
images that samples are compared with, patches and directions. Members of one seed share these
draws, so that they can be compared in pairs; members of different seeds share none.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
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
from vae_jax.metrics.feature_distances import (
    density_coverage,
    frechet_distance,
    precision_recall,
    small_pixels,
)
from vae_jax.metrics.image_quality import psnr
from vae_jax.metrics.sliced_wasserstein import FEWER, sliced_wasserstein
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import KINDS, Prior, codes_of, draw, fit_prior, normal_prior
from vae_jax.report.page import RESULTS
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.run import Run, classifier_features, decode, open_judge, open_run
from vae_jax.run_folder import read_rows
from vae_jax.streams import make_key
from vae_jax.subject import encode_subject, make_subject
from vae_jax.train.sweep import Member, SweepResult, member_folder, read_record
from vae_jax.types import ImageSet, UserError

STUDY = "ablation"  # folder of the page below that of the sweep
PLANE = "plane"  # the same below that of a told run, whose cells stand for members
FIGURES = "figures.json"  # what was measured of a member, in its folder
SCHEMA = 3
AXES = ("z_dim", "kl_weight", "learning_rate", "seed")
# Samples are compared with half of a split's images, at most so many: another seed, another half.
COMPARED_IMAGES = 1024
SPECTRUM_IMAGES = 4000  # training images that a linear VAE is fitted to
FEWEST = 8  # images that say anything about neighbours
PIECE = 1024  # images decoded at a time; a multiple of the batch that encoding is compiled for
SHOWN_SAMPLES, SHOWN_TEST_IMAGES, COLUMNS = 16, 8, 4
CURVES = ("loss", "recon_nats", "kl")
FROM_ROW = ("loss", "kl_weighted", "kl", "beta", "kl_share", "kl_share_above_floor", "elbo",
            "log_density_bound", "entropy_floor")  # fmt: skip
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
LARGEST_FILE = 2**28  # bytes of a results file; 100 members take about one MiB
MOST_MEMBERS = 5000

Figures = dict[str, float | None]
Space = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """What is measured beside the models themselves.

    Attributes:
        classifier: Run folder of a classifier of the same images, in whose features samples are
            compared too; None for none.
        priors: Kinds of priors that are fitted to every member, of `priors.fitted.KINDS`; samples
            are drawn from each of them as from N(0, I).
    """

    classifier: str | None = None
    priors: tuple[str, ...] = ("gaussian",)

    def __post_init__(self) -> None:
        for kind in self.priors:
            if kind not in KINDS:
                raise UserError(f"--priors has {kind!r}; valid are {', '.join(KINDS)}")


@dataclass(frozen=True)
class MeasuredMember:
    """A member of a sweep and what was measured of it.

    Attributes:
        name: Of its run folder.
        z_dim: Latent size.
        kl_weight: As in the config.
        learning_rate: As in the config.
        seed: Of training and of measuring.
        status: 'finished', 'interrupted', 'diverged' or 'failed'.
        reason: In words; empty when finished.
        step: Of its last checkpoint.
        seconds: That its training took.
        config_digest: Of its config.
        curves: By split the epochs and the figures of `CURVES` after each.
        test: Figures on the test split; empty unless finished. Nats per image: `recon`, `kl`,
            `elbo`; `psnr` in dB; see `set_figures` for the comparison of samples of N(0, I). The
            same with the name of a prior at the end compare its samples, with `_codes` decoded
            codes of training images, which no prior can beat but by luck, and with `_floor` these
            images themselves. With `linear_` before, what a linear VAE reaches on training images.
        validation: The same on the validation split, for choosing; empty without one.
        kl_per_dimension: `[Z]`, nats per image on the test split.
        folder: The run folder, where samples.png and reconstructions.png lie.
    """

    name: str
    z_dim: int
    kl_weight: float
    learning_rate: float
    seed: int
    status: str
    reason: str
    step: int
    seconds: float
    config_digest: str
    curves: dict[str, dict[str, list[float | None]]]
    test: Figures
    validation: Figures
    kl_per_dimension: list[float]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether there is anything to compare."""
        return self.status == "finished"


@dataclass(frozen=True)
class MeasuredSweep:
    """All members of a sweep, or of several sweeps that differ in nothing else.

    Attributes:
        workdirs: Folders of the sweeps.
        config: As validated, with its section `sweep`.
        images: Counts: `train`, `validation`, `test`, and `compared` with samples on test.
        facts: When, where and with which versions.
        seconds: Of `training` and of `measuring`.
        differences: Fields that are not as in configs/default.py, and their values.
        members: In order of z_dim, KL weight, learning rate and seed.
    """

    workdirs: tuple[str, ...]
    config: ConfigDict
    images: dict[str, int]
    facts: dict[str, str]
    seconds: dict[str, float]
    differences: dict[str, str]
    members: tuple[MeasuredMember, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """What results.json holds; `read_results` is the inverse."""
        rows = [asdict(member) for member in self.members]
        for row in rows:
            del row["folder"]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        config = json.loads(configs.to_json(self.config))
        return {"schema": SCHEMA} | values | {"config": config, "members": rows}


# Measuring.


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
        config: Of the sweep.
        workdir: Of the sweep.
        result: Of training.
        splits: The data.
        options: What else to measure.
        say: Prints one line per member.

    Returns:
        The results.

    Raises:
        UserError: A run that cannot be opened, or a classifier of other images.
    """
    began, workdir = time.monotonic(), Path(workdir)
    spaces: dict[str, Space] = {"pixels": small_pixels}
    if options.classifier:
        judge = open_judge(options.classifier, config.data, splits.digest)
        spaces["classifier"] = partial(classifier_features, judge)
    key = {"schema": SCHEMA} | asdict(options) | {"priors": list(options.priors)}
    # Members of one seed have it in common.
    floor = cache(lambda seed: floor_figures(splits.test, splits.train, seed, spaces))
    measured, spectrum, loss = [], None, config.loss
    if loss.likelihood in linear_vae.LIKELIHOODS:
        some = np.arange(min(len(splits.train), SPECTRUM_IMAGES))
        spectrum = linear_vae.image_spectrum(splits.train.take(some))
    for number, member in enumerate(result.members, start=1):
        found = _member_result(member, workdir, result, splits, spaces, key, floor)
        beta = found.test.get("beta")
        if spectrum is not None and beta:
            told = (found.z_dim, beta, loss.likelihood, loss.sigma)
            linear = linear_vae.forecast(spectrum, *told)
            found.test.update({f"linear_{name}": value for name, value in linear.items()})
        measured.append(found)
        say(f"measured {number}/{len(result.members)}: {member.name}, {measured[-1].status}")
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
        members=tuple(sorted(measured, key=_order)),
    )


def image_counts(splits: Splits) -> dict[str, int]:
    """Returns the numbers of images in the splits, and of those compared with samples on test."""
    return {
        "train": len(splits.train),
        "validation": 0 if splits.validation is None else len(splits.validation),
        "test": len(splits.test),
        "compared": _compared(splits.test, splits.train),
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


def _order(member: MeasuredMember) -> tuple[float, ...]:
    return tuple(getattr(member, name) for name in AXES)


def _member_result(
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
        kept = _kept_figures(folder / FIGURES, key)
        if kept is None:
            run = open_run(folder, outcome.step)
            measured = measure_member(run, splits, spaces, key["priors"])
            measured["test"] |= floor(member.config.seed)
            write_file(folder / FIGURES, json_bytes({"key": key} | measured))
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
    """Returns what was measured of a member at this key before; None to measure it."""
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
    """Measures one model on test and validation images, and draws what it shows.

    Writes samples.png (decoded points of N(0, I), of the run's seed), the same for every fitted
    prior, and reconstructions.png (test images, each above the decoded mean of its posterior) into
    the run folder.

    Args:
        run: The model.
        splits: Of its data.
        spaces: Feature spaces that do not depend on the model, by name.
        kinds: Priors that are fitted to its codes.

    Returns:
        `test`, `validation` and `kl_per_dimension`, see `MeasuredMember`.

    Raises:
        UserError: The run has no row of the test split, or posteriors that are not finite.
    """
    seed, train = run.config.seed, splits.train
    test, (mean, log_var), shown = split_figures(run, splits.test, _last_row(run, "test"))
    test |= posterior_figures(mean, log_var, seed)
    figures, judged = {"test": test, "validation": {}}, {"test": splits.test}
    if splits.validation is not None:
        row = _last_row(run, "validation")
        figures["validation"] = split_figures(run, splits.validation, row)[0]
        judged["validation"] = splits.validation
    real = {name: compared_images(run, split, train) for name, split in judged.items()}
    codes = codes_of(run, train, seed)
    judging = codes_of(run, judged["validation"], seed) if "validation" in judged else None
    priors = [fit_prior(kind, codes, judging, seed) for kind in kinds]
    pictures = {"reconstructions": paired_rows(list(shown), COLUMNS)}
    for prior in (normal_prior(run.model.z_dim, len(run.label_names)), *priors):
        suffix = f"_{prior.name}" if prior in priors else ""
        fake = prior_samples(run, prior, real)
        pictures[f"samples{suffix}"] = fake.pop("shown")
        for name, samples in fake.items():
            found = set_figures(real[name][0], samples, seed, spaces)
            figures[name] |= {f"{figure}{suffix}": value for figure, value in found.items()}
    images = real["test"][0]  # Compared with as many codes of training images, as for the floor.
    rows = chosen_rows(train, len(images), seed)
    labels = None if codes.labels is None else codes.labels[rows]
    decoded = decode(run.model, run.variables, codes.z[rows], labels)
    found = set_figures(images, decoded, seed, spaces)
    test |= {f"{name}_codes": value for name, value in found.items()}
    for name, pixels in pictures.items():
        facts = run.provenance | {"seed": str(seed)}
        save_png(run.workdir / f"{name}.png", image_grid(pixels, COLUMNS), facts)
    return figures | {"kl_per_dimension": posterior.kl_per_dimension(mean, log_var).tolist()}


def compared_images(
    run: Run[VAE], split: ImageSet, train: ImageSet
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns images that samples are compared with, and what the model is told about them."""
    rows = chosen_rows(split, _compared(split, train), run.config.seed)
    labels = condition_labels(run.config.data, split)
    return split.take(rows), None if labels is None else labels[rows]


def _last_row(run: Run[VAE], name: str) -> dict[str, Any]:
    rows = [row for row in read_rows(run.workdir) if row["split"] == name]
    if not rows and name == "test":
        raise UserError(f"{run.workdir} has no evaluation in its metrics; train it to the end")
    return rows[-1] if rows else {}


def split_figures(
    run: Run[VAE], split: ImageSet, row: Mapping[str, Any]
) -> tuple[Figures, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns what is known of a model on a split, and its answers.

    Args:
        run: The model.
        split: The images.
        row: What was logged of them, see `train.rows.complete_row`; perhaps nothing.

    Returns:
        Figures of the row, and the PSNR of reconstructions; mean and log_var `[N, Z]`; the first
        images and their reconstructions.
    """
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
    """Returns what the codes of a split say: active units, radii of draws, covariance.

    Args:
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` logarithms of the posterior variances.
        seed: Of the draws of the posterior.
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


def _compared(split: ImageSet, train: ImageSet) -> int:
    """Returns how many samples are compared with how many images of a split."""
    half = max(len(split) // 2, min(len(split), FEWEST))
    return min(half, len(train), COMPARED_IMAGES)


def chosen_rows(split: ImageSet, count: int, seed: int) -> np.ndarray:
    """Returns the positions `[count]` of a split that seed `seed` compares samples with."""
    return np.sort(np.random.default_rng(seed).permutation(len(split))[:count])


def prior_samples(
    run: Run[VAE], prior: Prior, real: Mapping[str, tuple[np.ndarray, np.ndarray | None]]
) -> dict[str, np.ndarray]:
    """Decodes points of a prior: for each split as many as images, told the same; and `shown`."""
    count, parts = 0, {"shown": slice(SHOWN_SAMPLES)}
    for name, (images, _) in real.items():
        # Choosing on validation must not profit from the samples that test judges: its own points.
        parts[name] = slice(count, count + len(images))
        count += len(images)
    count, labels = max(count, SHOWN_SAMPLES), None
    told = [labels for _, labels in real.values() if labels is not None]
    if told:
        labels = np.resize(np.concatenate(told), (count, len(run.label_names)))
    z = draw(prior, run.config.seed, count, labels=labels)
    return {
        name: decode(run.model, run.variables, z[part], None if labels is None else labels[part])
        for name, part in parts.items()
    }


def floor_figures(
    split: ImageSet, train: ImageSet, seed: int, spaces: Mapping[str, Space]
) -> Figures:
    """Returns `set_figures` of training images, each with `_floor` to its name.

    They are what a perfect model would reach, at the same counts and draws as its samples.
    """
    count = _compared(split, train)
    real, other = (part.take(chosen_rows(part, count, seed)) for part in (split, train))
    return {f"{name}_floor": v for name, v in set_figures(real, other, seed, spaces).items()}


def set_figures(
    real: np.ndarray, fake: np.ndarray, seed: int, spaces: Mapping[str, Space]
) -> Figures:
    """Compares two sets of images in spaces that are the same for every model.

    Args:
        real: `[N, H, W, C]` uint8, or float in [0, 1].
        fake: The same, as many.
        seed: Of patches and directions.
        spaces: Feature spaces by name.

    Returns:
        `sliced_wasserstein`, and for each space NAME_frechet (squared distance), NAME_precision,
        NAME_recall, NAME_density and NAME_coverage; without the latter for fewer than 8 images.
    """
    figures: Figures = {
        "sliced_wasserstein": sliced_wasserstein(
            real, fake, make_key(seed), keep_contrast=False, **FEWER
        )["mean"]
    }
    if len(real) < FEWEST:
        return figures
    for space, features in spaces.items():
        pair = features(real), features(fake)
        values = precision_recall(*pair) | density_coverage(*pair)
        values["frechet"] = frechet_distance(*pair)
        figures |= {f"{space}_{name}": _finite(value) for name, value in values.items()}
    return figures


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


# Reading and merging.

NUMBER, FIGURE = "a number", "a number or null"
FIGURES_SCHEMA: dict[str, Any] = {
    "test": {str: FIGURE}, "validation": {str: FIGURE}, "kl_per_dimension": [NUMBER],
}  # fmt: skip
MEMBER_SCHEMA: dict[str, Any] = FIGURES_SCHEMA | {
    "name": str, "z_dim": int, "kl_weight": NUMBER, "learning_rate": NUMBER, "seed": int,
    "status": str, "reason": str, "step": int, "seconds": NUMBER, "config_digest": str,
    "curves": {str: {str: [FIGURE]}},
}  # fmt: skip
RESULTS_SCHEMA: dict[str, Any] = {
    "schema": int, "workdirs": [str], "config": dict, "images": {str: int}, "facts": {str: str},
    "seconds": {"training": NUMBER, "measuring": NUMBER}, "differences": {str: str},
    "members": [MEMBER_SCHEMA],
}  # fmt: skip


def checked(value: Any, schema: Any, where: str) -> Any:
    """Returns a JSON value if it is what a schema says.

    Args:
        value: As read.
        schema: A type; `NUMBER` or `FIGURE`; `[schema]` for a list; `{str: schema}` for any names,
            or `{name: schema, ...}` for exactly these.
        where: Names the value in errors.

    Raises:
        UserError: It is not; names the place.
    """
    if isinstance(schema, list):
        for i, item in enumerate(checked(value, list, where)):
            checked(item, schema[0], f"{where}[{i}]")
    elif isinstance(schema, dict):
        names = checked(value, dict, where).keys()
        wanted = dict.fromkeys(names, schema[str]) if str in schema else schema
        if names != wanted.keys():
            odd = ", ".join(sorted(names ^ wanted.keys())[:3])
            raise UserError(f"{where} has missing or unknown entries: {odd}")
        for name, inner in wanted.items():
            checked(value[name], inner, f"{where}.{name}")
    elif schema in (NUMBER, FIGURE):
        number = type(value) in (int, float) and abs(value) < float("inf")
        if not number and (value is not None or schema == NUMBER):
            raise UserError(f"{where} is not {schema}")
    elif not isinstance(value, schema) or isinstance(value, bool):
        raise UserError(f"{where} is not of type {schema.__name__}")
    return value


def read_results(workdir: str | Path) -> MeasuredSweep:
    """Reads the results of a sweep, or of a plane, which may come from elsewhere.

    Args:
        workdir: Folder of the sweep, or of the run that is told its KL weight or latent size.

    Raises:
        UserError: There are none, or they are not what this version writes.
    """
    path = Path(workdir) / STUDY / RESULTS
    if not path.is_file() and (Path(workdir) / PLANE / RESULTS).is_file():
        path = Path(workdir) / PLANE / RESULTS
    if not path.is_file():
        raise UserError(
            f"{str(workdir)!r} has no {STUDY}/{RESULTS}; run experiments.ablation there first"
        )
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} is larger than {LARGEST_FILE >> 20} MiB: no results of a sweep")
    again = "run experiments.ablation again to renew it"
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))["results"]
        numbers = numbers.get("cells", numbers)
        if numbers["schema"] != SCHEMA:
            raise ValueError("its format is another")
        checked(numbers, RESULTS_SCHEMA, "results")
        config = configs.from_json(json.dumps(numbers["config"]))
        configs.validate(config)
        members = tuple(_read_member(row, Path(workdir)) for row in numbers["members"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path} does not hold the results of a sweep ({reason}); {again}"
        ) from None
    rest = {name: numbers[name] for name in ("images", "facts", "seconds", "differences")}
    if not members or len(members) > MOST_MEMBERS:
        raise UserError(f"{path} has {len(members)} members, but 1 to {MOST_MEMBERS} are shown")
    return MeasuredSweep((str(workdir),), config, **rest, members=members)


def _read_member(row: dict[str, Any], workdir: Path) -> MeasuredMember:
    # The name leads to the member's pictures: a plain name cannot climb out of the folder.
    if row["name"] in ("", ".", "..") or Path(row["name"]).name != row["name"]:
        raise UserError(f"member name {row['name']!r} is not the name of a folder")
    for name, curve in row["curves"].items():
        lengths = {len(values) for values in curve.values()}
        if curve.keys() != {"epoch", *CURVES} or len(lengths) != 1:
            raise UserError(f"curves of {row['name']} on {name!r} are incomplete")
    return MeasuredMember(**row, folder=workdir / "members" / row["name"])


def merge_results(results: Sequence[MeasuredSweep]) -> list[MeasuredSweep]:
    """Puts sweeps together whose configs agree in all but what is swept.

    Args:
        results: Of sweeps.

    Returns:
        Results in the order given, with the members of all sweeps that belong together; of
        members with one name the last one stays.
    """
    merged: dict[str, MeasuredSweep] = {}
    for result in results:
        key = _common_config(result.config)
        if key not in merged:
            merged[key] = result
            continue
        first = merged[key]
        members = {member.name: member for member in (*first.members, *result.members)}
        merged[key] = replace(
            first,
            workdirs=(*first.workdirs, *result.workdirs),
            seconds={name: first.seconds[name] + result.seconds[name] for name in first.seconds},
            members=tuple(sorted(members.values(), key=_order)),
        )
    return list(merged.values())


def _common_config(config: ConfigDict) -> str:
    flat = configs.flatten(config)
    swept = ("seed", "data.path", "loss.kl_weight", "model.z_dim", "optimizer.learning_rate")
    rest = {k: v for k, v in flat.items() if k not in swept and not k.startswith("sweep.")}
    return json.dumps(rest, sort_keys=True)


def results_csv(result: MeasuredSweep) -> bytes:
    """Returns the members as a CSV table: one row per member, figures on test and validation."""
    tables = []
    for member in result.members:
        row = asdict(member)
        for name in ("curves", "kl_per_dimension", "folder", "test", "validation"):
            del row[name]
        row |= {f"test_{name}": value for name, value in member.test.items()}
        row |= {f"validation_{name}": value for name, value in member.validation.items()}
        tables.append(row)
    columns = list(dict.fromkeys(name for row in tables for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables)
    return text.getvalue().encode()

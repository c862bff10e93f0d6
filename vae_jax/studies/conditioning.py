"""What a conditional model makes of a condition: pictures, and what a classifier recognises.

For classes, the picture has one row per class and the same z in every column. For attributes, the
first row has the attributes of test images, and each attribute then has a row without and a row
with it; one picture decodes points of N(0, I), another encoded test images. A classifier counts how
often a decoded image shows the condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from vae_jax.data.splits import condition_labels, first_images
from vae_jax.models.classifier import Classifier
from vae_jax.models.vae import VAE
from vae_jax.report.page import Page, Picture, Section, Table
from vae_jax.report.pictures import image_grid
from vae_jax.run import Run, decode, open_judge, predict, prior_latents, run_splits
from vae_jax.run_folder import read_rows
from vae_jax.subject import encode_subject, make_subject
from vae_jax.types import ImageSet, UserError


@dataclass(frozen=True)
class Options:
    """What is shown and judged.

    Attributes:
        seed: Seed of the latent points.
        columns: Points in the pictures.
        count: Points that are judged for each class; or test images whose other attributes are
            used.
        classifier: Run folder of the classifier that judges; None for pictures alone.
    """

    seed: int = 0
    columns: int = 12
    count: int = 1000
    classifier: str | None = None


@dataclass(frozen=True)
class AttributeRates:
    """Shares of images in which a classifier sees an attribute.

    Attributes:
        asked: Share of images decoded with the attribute.
        refused: Share of images decoded without it, from the same z and other attributes.
        real_with: Share of test images that have it, the best to be expected; NaN without any.
        real_without: Share of test images that do not have it; NaN without any.
        counts: Number of images of each share.
    """

    asked: float
    refused: float
    real_with: float
    real_without: float
    counts: tuple[int, int, int, int]


@dataclass(frozen=True)
class Result:
    """What was drawn and judged.

    Attributes:
        facts: Checkpoint and seed.
        options: The options.
        names: Names of the classes or attributes.
        images: By name of the picture, its images `[R K, H, W, C]`, row by row.
        rows: By name of the picture, the names of its rows.
        confusion: `[L, L]` counts, condition by recognised class; None unless classes were judged.
        rates: Rates by attribute; None unless attributes were judged.
        accuracy: Accuracy of the classifier on its own test images; None without a classifier.
    """

    facts: dict[str, str]
    options: Options
    names: tuple[str, ...]
    images: dict[str, np.ndarray]
    rows: dict[str, tuple[str, ...]]
    confusion: np.ndarray | None = None
    rates: dict[str, AttributeRates] | None = None
    accuracy: float | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of results.json."""
        numbers: dict[str, Any] = {"options": asdict(self.options), "names": self.names}
        if self.confusion is not None:
            low, high = share_interval(int(np.trace(self.confusion)), int(self.confusion.sum()))
            right = float(np.trace(self.confusion) / self.confusion.sum())
            numbers |= {"confusion": self.confusion, "right": right, "interval": [low, high]}
        if self.rates is not None:
            numbers["rates"] = {name: asdict(rates) for name, rates in self.rates.items()}
        return numbers | {"classifier_accuracy": self.accuracy}


def measure(run: Run[VAE], options: Options) -> Result:
    """Decodes points with various conditions, and judges the images if there is a classifier.

    Args:
        run: A run of a conditional model.
        options: What to show and judge.

    Raises:
        UserError: A model without condition, or a classifier of other classes or attributes.
    """
    if not run.label_names:
        raise UserError(f"{str(run.workdir)!r} was trained without condition")
    test = run_splits(run).test
    images, rows = condition_images(run, test, options)
    facts = run.provenance | {"seed": str(options.seed)}
    result = Result(facts, options, run.label_names, images, rows)
    if options.classifier is None:
        return result
    judge = open_judge(options.classifier, run.config.data)
    own = [row["accuracy"] for row in read_rows(options.classifier) if row["split"] == "test"]
    judged: dict[str, Any] = {"accuracy": own[-1] if own else None}
    if run.config.data.condition == "class":
        z = prior_latents(options.seed, options.count, run.model.z_dim)
        judged["confusion"] = class_confusion(run, judge, z)
    else:
        some = first_images(test, min(options.count, len(test)), "--count")
        base = np.asarray(condition_labels(run.config.data, some))
        z = prior_latents(options.seed, len(some), run.model.z_dim)
        real = (some.take(np.arange(len(some))), base)
        judged["rates"] = attribute_rates(run, judge, z, base, real)
    return Result(facts, options, run.label_names, images, rows, **judged)


def condition_images(
    run: Run[VAE], test: ImageSet, options: Options
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Returns the images of every picture `[R K, H, W, C]`, and the names of its rows.

    Args:
        run: A run of a conditional model.
        test: Its test split.
        options: Seed and columns.
    """
    names = run.label_names
    z = prior_latents(options.seed, options.columns, run.model.z_dim)
    if run.config.data.condition == "class":
        images = decode(run.model, run.variables, *class_grid(z, len(names)))
        return {"classes": images}, {"classes": names}
    changes = [f"{name} {value}" for name in names for value in (0, 1)]
    shown = first_images(test, min(options.columns, len(test)), "--columns")
    subject = make_subject(run, shown)
    seen, base = encode_subject(subject), np.asarray(subject.labels)
    drawn = decode(run.model, run.variables, *attribute_grid(z[: len(shown)], base))
    edited = decode(run.model, run.variables, *attribute_grid(seen.mean, base))
    images = {"attributes": drawn, "edited": np.concatenate([seen.targets, edited])}
    rows = {
        "attributes": ("z of N(0, I) as test images are told", *changes),
        "edited": ("test images", "their reconstructions", *changes),
    }
    return images, rows


def class_grid(z: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and labels of a grid with one row per class, the same z in every column.

    Args:
        z: `[K, Z]`.
        classes: L.

    Returns:
        z `[L K, Z]` and one-hot labels `[L K, L]`, row by row.
    """
    labels = np.repeat(np.eye(classes, dtype=np.float32), len(z), axis=0)
    return np.tile(z, (classes, 1)), labels


def attribute_grid(z: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and labels of a grid whose rows change one attribute at a time.

    The first row has the labels `base`; each attribute then has a row without and a row with it.

    Args:
        z: `[K, Z]`.
        base: `[K, A]` labels of the columns.

    Returns:
        z `[(1 + 2 A) K, Z]` and labels `[(1 + 2 A) K, A]`, row by row.
    """
    rows = [base]
    for attribute in range(base.shape[1]):
        rows += [with_attribute(base, attribute, value) for value in (0.0, 1.0)]
    return np.tile(z, (len(rows), 1)), np.concatenate(rows)


def with_attribute(labels: np.ndarray, attribute: int, value: float) -> np.ndarray:
    """Returns labels `[N, A]` with one attribute set to `value`."""
    changed = labels.copy()
    changed[:, attribute] = value
    return changed


def class_confusion(run: Run[VAE], judge: Run[Classifier], z: np.ndarray) -> np.ndarray:
    """Decodes every point as every class and counts the recognised classes.

    Args:
        run: A run of a model that is told the class.
        judge: A classifier of the same classes.
        z: `[K, Z]`.

    Returns:
        `[L, L]` int64, one row per class that was asked for and one column per recognised class;
        rows sum to K.

    Raises:
        UserError: The classifier was trained on other classes.
    """
    if judge.label_names != run.label_names:
        raise UserError(
            f"the classifier knows {', '.join(judge.label_names)}, but the model was told "
            f"{', '.join(run.label_names)}: train one on the same classes"
        )
    count = len(run.label_names)
    points, labels = class_grid(z, count)
    recognised = predict(judge, decode(run.model, run.variables, points, labels)).argmax(1)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels.argmax(1), recognised), 1)
    return matrix


def attribute_rates(
    run: Run[VAE],
    judge: Run[Classifier],
    z: np.ndarray,
    base: np.ndarray,
    real: tuple[np.ndarray, np.ndarray],
) -> dict[str, AttributeRates]:
    """Decodes points with and without each attribute, all other attributes as in `base`.

    Args:
        run: A run of a model that is told attributes.
        judge: A classifier of attributes.
        z: `[N, Z]`.
        base: `[N, A]` labels.
        real: Test images `[M, H, W, C]` and their labels `[M, A]`.

    Returns:
        Rates by attribute that both the model and the classifier know.

    Raises:
        UserError: There is no such attribute.
    """
    common = [name for name in run.label_names if name in judge.label_names]
    if not common:
        raise UserError(
            f"the classifier knows {', '.join(judge.label_names)}, of which the model was told "
            f"none ({', '.join(run.label_names)}): train one on the same attributes"
        )
    real_images, real_labels = real
    real_found = predict(judge, real_images) > 0.5
    rates = {}
    for name in common:
        column, wanted = judge.label_names.index(name), run.label_names.index(name)
        groups = []
        for value in (1.0, 0.0):
            labels = with_attribute(base, wanted, value)
            images = decode(run.model, run.variables, z, labels)
            groups.append(predict(judge, images)[:, column] > 0.5)
        groups += [real_found[real_labels[:, wanted] == value, column] for value in (1.0, 0.0)]
        asked, refused, present, absent = (
            float(group.mean()) if len(group) else float("nan") for group in groups
        )
        counts = (len(groups[0]), len(groups[1]), len(groups[2]), len(groups[3]))
        rates[name] = AttributeRates(asked, refused, present, absent, counts)
    return rates


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share by Wilson's score; (0, 1) for no images."""
    if not count:
        return 0.0, 1.0
    interval = stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def page(result: Result) -> Page:
    """Returns the page: pictures, and the table of what was recognised."""
    options, sections = result.options, []
    what = {
        "classes": "The same z in every column, decoded as every class: the class should change "
        "from row to row, and the style should stay.",
        "attributes": "Points of N(0, I), one attribute changed at a time: all else should stay.",
        "edited": "Encoded test images with one attribute changed at a time.",
    }
    for name, images in result.images.items():
        rows = result.rows[name]
        caption = f"{what[name]} Rows: {', '.join(rows)}."
        picture = Picture(name, image_grid(images, len(images) // len(rows)), caption)
        sections.append(Section(name.capitalize(), pictures=[picture]))
    lead = f"The model was trained with the labels {', '.join(result.names)}; here it decodes them."
    own = ""
    if result.accuracy is not None:
        own = f" The classifier itself is right on {result.accuracy:.2%} of its test images."
    if result.confusion is not None:
        hits, total = int(np.trace(result.confusion)), int(result.confusion.sum())
        low, high = share_interval(hits, total)
        told = (
            f" {hits / total:.2%} [{low:.2%}, {high:.2%}] of {total:,} decoded points of N(0, I), "
            f"{options.count:,} for each of {len(result.names)} classes, show the class asked for."
        )
        lead += told + own
        sections.append(Section("Asked against recognised", tables=[confusion_table(result)]))
    elif result.rates is not None:
        lead += " A classifier counts how often an attribute that is asked for is seen." + own
        sections.append(Section("Asked against recognised", tables=[rates_table(result.rates)]))
    return Page("What the condition does", lead, sections, result.facts)


def confusion_table(result: Result) -> Table:
    """Returns the confusion in percent of the points of each class, with intervals."""
    assert result.confusion is not None
    rows = []
    for i, (name, row) in enumerate(zip(result.names, result.confusion, strict=True)):
        count = int(row.sum())
        cells = [f"{share:.1%}" if share else "" for share in row / count]
        rows.append([name, *cells, _share(int(row[i]), count)])
    caption = (
        f"Row: the class asked for, {result.options.count:,} points each; column: the class "
        "recognised. Right: the share of the row with its 95 % interval (Wilson), for this model "
        "and the draw of points."
    )
    return Table(["asked \\ recognised", *result.names, "right"], rows, caption)


def rates_table(rates: dict[str, AttributeRates]) -> Table:
    """Returns the shares of images in which each attribute is recognised."""
    rows = []
    for name, own in rates.items():
        shares: Sequence[float] = (own.asked, own.refused, own.real_with, own.real_without)
        cells = [
            _share(round(share * count), count) if count else "no such image"
            for share, count in zip(shares, own.counts, strict=True)
        ]
        rows.append([name, *cells])
    count = next(iter(rates.values())).counts[0]
    caption = (
        f"Shares of images in which the attribute is recognised, with 95 % intervals (Wilson): "
        f"{count:,} decoded points of N(0, I) with the other attributes of test images, and those "
        "test images themselves."
    )
    header = ("attribute", "asked for", "not asked for", "test with it", "test without it")
    return Table(header, rows, caption)


def _share(hits: int, count: int) -> str:
    low, high = share_interval(hits, count)
    return f"{hits / count:.1%} [{low:.1%}, {high:.1%}]"

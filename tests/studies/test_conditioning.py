"""Asked against recognised: counts, and what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from configs import tiny
from vae_jax.report.page import write_study
from vae_jax.run import Run
from vae_jax.studies import conditioning
from vae_jax.studies.conditioning import (
    AttributeRates,
    Options,
    Result,
    attribute_grid,
    attribute_rates,
    class_confusion,
    class_grid,
    confusion_table,
    share_interval,
    with_attribute,
)
from vae_jax.types import UserError


def run_of(names):
    return Run(Path(), tiny.get_config(), 1, None, {}, names)


def test_a_row_for_each_class_with_the_same_points():
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    points, labels = class_grid(z, 4)
    np.testing.assert_array_equal(points.reshape(4, 3, 2), np.stack([z] * 4))
    np.testing.assert_array_equal(labels.argmax(1), np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(labels.sum(1), 1)


def test_one_attribute_changes_at_a_time():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 2)).astype(np.float32)
    base = rng.integers(0, 2, (5, 3)).astype(np.float32)
    before = base.copy()
    points, labels = attribute_grid(z, base)
    rows = labels.reshape(7, 5, 3)
    np.testing.assert_array_equal(points.reshape(7, 5, 2), np.stack([z] * 7))
    np.testing.assert_array_equal(rows[0], base)
    for attribute in range(3):
        others = np.arange(3) != attribute
        for value in (0, 1):
            row = rows[1 + 2 * attribute + value]
            np.testing.assert_array_equal(row[:, attribute], value)
            np.testing.assert_array_equal(row[:, others], base[:, others])
    with_attribute(base, 0, 1.0)
    np.testing.assert_array_equal(base, before)


def result_of(**judged):
    return Result({}, Options(columns=2, count=2), ("a", "b", "c"), {}, {}, **judged)


def test_a_picture_has_its_rows_below_each_other_however_few_images_there_are():
    names = ("told", "a 0", "a 1")
    images = np.repeat(np.linspace(0, 1, 3), 2)[:, None, None, None] * np.ones((6, 64, 64, 1))
    result = Result({}, Options(columns=12), ("a",), {"edited": images}, {"edited": names})
    picture = conditioning.page(result).sections[0].pictures[0]
    shown = np.asarray(picture.image)[:, :, 0]
    assert picture.image.size == (2 * 66 + 2, 3 * 66 + 2)
    assert [shown[top + 30, left + 30] for top in (0, 66, 132) for left in (0, 66)] == [
        0, 0, 128, 128, 255, 255,
    ]  # fmt: skip
    assert picture.caption.endswith("Rows: told, a 0, a 1.")


def test_the_table_gives_shares_of_what_was_asked():
    matrix = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    table = confusion_table(result_of(confusion=matrix))
    assert table.header == ["asked \\ recognised", "a", "b", "c", "right"]
    assert table.rows[0][:4] == ["a", "50.0%", "50.0%", ""]
    assert table.rows[2][:4] == ["c", "33.3%", "", "66.7%"]
    assert table.rows[2][4].startswith("66.7% [")


def test_intervals_of_shares_are_wilsons():
    # Newcombe 1998, table I: 81 of 263.
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share_interval(0, 0) == (0, 1)


def test_an_attribute_that_no_test_image_has_leaves_strict_json(tmp_path):
    rates = {"Hat": AttributeRates(0.9, 0.1, float("nan"), 0.2, (10, 10, 0, 10))}
    result = result_of(rates=rates, accuracy=0.5)
    page = conditioning.page(result)
    assert "no such image" in page.sections[-1].tables[0].rows[0]
    write_study(tmp_path, page, result.numbers)

    def refuse(name):
        raise ValueError(name)

    text = (tmp_path / "results.json").read_text()
    read = json.loads(text, parse_constant=refuse)["results"]
    assert read["rates"]["Hat"]["real_with"] is None and read["rates"]["Hat"]["asked"] == 0.9


@pytest.fixture
def transparent(monkeypatch):
    """A decoder that draws its labels, and a classifier that reads them in its own order."""
    monkeypatch.setattr(
        conditioning, "decode", lambda model, variables, z, labels: labels[:, None, None, :]
    )
    monkeypatch.setattr(conditioning, "predict", lambda judge, images: images[:, 0, 0, ::-1])


def test_classes_are_judged_for_every_point(transparent, monkeypatch):
    monkeypatch.setattr(conditioning, "predict", lambda judge, images: images[:, 0, 0])
    z = np.zeros((7, 2), np.float32)
    run = run_of(("a", "b", "c"))
    np.testing.assert_array_equal(class_confusion(run, run, z), 7 * np.eye(3))
    with pytest.raises(UserError, match="the classifier knows b, but the model was told a, b, c"):
        class_confusion(run, run_of(("b",)), z)


def test_attributes_are_found_by_name_not_by_position(transparent):
    z = np.zeros((6, 2), np.float32)
    base = np.random.default_rng(0).integers(0, 2, (6, 3)).astype(np.float32)
    real = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.float32)
    wrong = real.copy()
    wrong[0, 1] = 1  # One image shows what its label denies.
    images = wrong[:, None, None, :]
    run, judge = run_of(("x", "y", "z")), run_of(("z", "y", "x"))
    rates = attribute_rates(run, judge, z, base, (images, real))
    assert list(rates) == ["x", "y", "z"]
    assert rates["z"] == AttributeRates(1.0, 0.0, 1.0, 0.0, (6, 6, 1, 3))
    assert rates["y"] == AttributeRates(1.0, 0.0, 1.0, pytest.approx(1 / 3), (6, 6, 1, 3))
    assert rates["x"].counts == (6, 6, 4, 0) and np.isnan(rates["x"].real_without)
    with pytest.raises(UserError, match="knows q, of which the model was told none"):
        attribute_rates(
            run, dataclasses.replace(judge, label_names=("q",)), z, base, (images, real)
        )

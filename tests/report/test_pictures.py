"""Pictures: layout to the pixel, provenance, nothing half-written."""

import numpy as np
import pytest
from PIL import Image

from vae_jax.report.pictures import (
    GAP,
    LABEL_WIDTH,
    image_grid,
    labelled_sheet,
    paired_rows,
    save_png,
    sharpened,
    to_uint8,
)


def test_floats_are_rounded_not_truncated():
    assert to_uint8(np.array([-1.0, 0.0, 0.5, 0.999, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_grid_places_every_image():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    grid = np.asarray(image_grid(images, columns=3))
    assert grid.shape == (2 * (64 + GAP) + GAP, 3 * (64 + GAP) + GAP, 3)
    assert grid[GAP, GAP + 64 + GAP, 0] == 1
    assert grid[GAP + 64 + GAP, GAP, 0] == 3
    assert (grid[-1] == 255).all() and (grid[GAP + 64 + GAP + 5, -5] == 255).all()


def test_small_grey_images_are_enlarged_in_colour():
    grid = np.asarray(image_grid(np.zeros((1, 16, 16, 1)), columns=1))
    assert grid.shape == (64 + 2 * GAP, 64 + 2 * GAP, 3)


def test_paired_rows_put_partners_under_each_other():
    a, b = (np.full((3, 2, 2, 1), v, np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
            for v in (10, 20))  # fmt: skip
    order = paired_rows([a, b], columns=2)[:, 0, 0, 0].tolist()
    assert order == [10, 11, 20, 21, 12, 255, 22, 255]


def test_png_carries_its_facts_and_is_all_or_nothing(tmp_path, monkeypatch):
    picture = image_grid(np.zeros((1, 64, 64, 3)), 1)
    save_png(tmp_path / "deep" / "a.png", picture, {"seed": "33"})
    with Image.open(tmp_path / "deep" / "a.png") as saved:
        assert saved.text == {"seed": "33"}

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(tmp_path / "b.png", picture, {})
    assert not (tmp_path / "b.png").exists()


def test_sharpening_steepens_edges_and_keeps_the_raw_picture():
    picture = Image.fromarray(np.repeat(np.linspace(64, 192, 32, dtype=np.uint8)[None], 32, 0))
    before = np.asarray(picture).copy()
    edge = Image.fromarray(np.where(before > 128, 180, 80).astype(np.uint8)).resize((64, 64))
    assert np.asarray(sharpened(edge)).std() > np.asarray(edge).std()
    np.testing.assert_array_equal(np.asarray(picture), before)


def test_a_sheet_has_a_row_a_name_and_cuts_it_to_the_columns():
    dark, light = np.zeros((5, 64, 64, 1)), np.ones((5, 64, 64, 1), np.float32)
    sheet = labelled_sheet([("dark", dark), ("light", light)], 3)
    width = LABEL_WIDTH
    strip = 3 * 66 + 2
    assert sheet.size == (width + strip, 2 * 68)
    pixels = np.asarray(sheet.convert("L"))
    assert (pixels[2:66, width + 2 : width + 66] == 0).all()
    assert (pixels[70:134, width:] == 255).all()
    assert pixels[20:48, :width].min() < 100 and pixels[88:116, :width].min() < 100  # names

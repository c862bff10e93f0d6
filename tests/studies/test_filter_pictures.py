"""Pages of patterns: every image where it belongs, curves that can be drawn."""

import numpy as np

from vae_jax.report.pictures import CAPTION_HEIGHT, GAP, captioned_grid
from vae_jax.studies.filters import response_curves


def test_images_lie_row_by_row_with_room_for_captions():
    images = np.zeros((5, 40, 30, 1))
    images[3] = 1.0
    picture = np.asarray(captioned_grid(images, [f"map {i}" for i in range(5)], columns=2))
    height, width = 80, 60  # enlarged twice
    row, column = height + CAPTION_HEIGHT + GAP, width + GAP
    assert picture.shape == (3 * row + GAP, 2 * column + GAP, 3)
    for i in range(5):
        top, left = GAP + (i // 2) * row, GAP + (i % 2) * column
        tile = picture[top : top + height, left : left + width]
        assert (tile == (255 if i == 3 else 0)).all()
        caption = picture[top + height : top + height + CAPTION_HEIGHT, left : left + width]
        assert caption.min() < 50 and caption.max() == 255


def test_colours_are_kept():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[..., 1] = 200
    picture = np.asarray(captioned_grid(image, ["green"], columns=1))
    assert picture[10, 10].tolist() == [0, 200, 0]


def test_curves_may_end_early():
    curves = np.array([[1.0, 2.0], [1.5, 2.0], [np.nan, 2.5]])
    picture = np.asarray(response_curves(curves, ["map 3", "map 1"]))
    assert picture.ndim == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10

"""Procedural faces are a function of (seed, index), and their attributes are visible."""

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vae_jax.data.faces.canvas import HEAD_CENTRE, REFERENCE_SIZE, WHITE, Canvas
from vae_jax.data.faces.drawing import render_face
from vae_jax.data.faces.factors import ATTRIBUTES, FaceFactors, face_attributes, face_factors
from vae_jax.types import UserError


def pixels(factors: FaceFactors) -> np.ndarray:
    return np.asarray(render_face(factors), np.float64)  # [218, 178, 3]


def plain_face(**changes: object) -> FaceFactors:
    """A face that looks straight ahead under even light, with the given factors changed."""
    plain = {
        "shift_x": 0.0,
        "shift_y": 0.0,
        "roll": 0.0,
        "yaw": 0.0,
        "pitch": 0.0,
        "zoom": 1.0,
        "light_strength": 0.0,
        "glasses": False,
        "hat": False,
        "bald": False,
        "bangs": False,
        "beard": 0.0,
        "hair_length": 0.1,
        "gaze_x": 0.0,
        "gaze_y": 0.0,
        "eye_color": 0.0,
        "eye_opening": 6.0,
    }
    return replace(face_factors(5, 0), **{**plain, **changes})


def test_face_is_a_function_of_seed_and_index():
    first = face_factors(1, 2)
    face_factors(9, 9)
    assert face_factors(1, 2) == first
    np.testing.assert_array_equal(pixels(first), pixels(face_factors(1, 2)))
    for other in (face_factors(2, 2), face_factors(1, 3), face_factors(2, 1)):
        assert other != first
        assert np.abs(pixels(other) - pixels(first)).mean() > 5


def test_faces_of_a_seed_are_those_of_always():
    """The draws exactly, and four small pictures up to what another machine rounds."""
    faces = [face_factors(seed, index) for seed, index in ((0, 0), (0, 1), (1, 0), (7, 41))]
    digest = hashlib.sha256(repr(faces).encode()).hexdigest()
    assert digest == "53ee9b0df6047197c8db8bc7acc7672980976b490c821133ab06bfb56fccd2cf"
    with Image.open(Path(__file__).parent / "golden_faces.png") as picture:
        golden = np.asarray(picture, int)  # [54, 4 * 44, 3]
    drawn = np.concatenate([np.asarray(render_face(face, (44, 54)), int) for face in faces], 1)
    assert np.abs(drawn - golden).max() <= 1
    assert np.mean(drawn != golden) < 0.001


def test_shapes_drawn_together_are_those_drawn_alone():
    """White polygons on black, also across every border, against one picture of Pillow each."""
    width, height = REFERENCE_SIZE
    turns = 0.8 * np.pi * np.arange(5)  # A star, whose outline crosses itself.
    middles = [(30, 30), (80, 33), (171, 40), (3, 90), (100, 80), (89, 150), (60, 211), (300, 90)]
    canvas = Canvas(plain_face(), REFERENCE_SIZE)
    expected = np.zeros((height, width), int)
    for x, y in middles:
        star_x, star_y = x + 21.3 * np.sin(turns), y - 20.7 * np.cos(turns)
        canvas.fill(star_x - HEAD_CENTRE[0] + 1j * (star_y - HEAD_CENTRE[1]), WHITE, lit=False)
        alone = Image.new("L", (4 * width, 4 * height))
        corners = np.stack([star_x, star_y], axis=1) * 4 - 0.5
        ImageDraw.Draw(alone).polygon(corners.ravel().tolist(), fill=255)
        expected = np.maximum(expected, np.asarray(alone.reduce(4), int))
    drawn = np.asarray(canvas.image(np.add), int)
    assert (expected > 0).mean() > 0.05
    np.testing.assert_array_equal(drawn, np.repeat(expected[:, :, None], 3, axis=2))


def test_head_outside_the_picture_leaves_the_background():
    away = pixels(plain_face(shift_x=900.0, background_hue_step=0.0, background_saturation=0.0))
    across = np.diff(away, axis=1)
    assert np.abs(across).max() <= 2


def test_every_number_varies_and_is_its_own_degree_of_freedom():
    sample = [face_factors(0, i) for i in range(400)]
    names = [f.name for f in fields(FaceFactors) if f.name != "hair_color"]
    table = np.array([[float(getattr(f, name)) for name in names] for f in sample])  # [400, F]
    assert np.all(table.std(axis=0) > 0)
    variances = np.linalg.eigvalsh(np.corrcoef(table.T))
    participation = variances.sum() ** 2 / (variances**2).sum()
    assert participation > 40


def test_pictures_span_many_directions():
    size = (16, 20)
    sample = np.array(
        [np.asarray(render_face(face_factors(0, i), size), np.float64).ravel() for i in range(200)]
    )
    variances = np.linalg.svd(sample - sample.mean(axis=0), compute_uv=False) ** 2
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.95)) + 1
    assert 15 <= needed < 100


@pytest.mark.parametrize("seed, index", [(-1, 0), (0, -1), (2**64, 0)])
def test_bad_seed_or_index_is_refused(seed, index):
    with pytest.raises(UserError, match="must lie in 0"):
        face_factors(seed, index)


def test_picture_scales_with_size():
    factors = face_factors(0, 4)
    large = render_face(factors, (356, 436))
    assert (large.size, large.mode) == ((356, 436), "RGB")
    halved = np.asarray(large.reduce(2), np.float64)
    assert np.abs(halved - pixels(factors)).mean() < 1.0


def test_attributes_are_binary_and_balanced():
    table = np.array([face_attributes(face_factors(11, i)) for i in range(3000)])
    assert table.shape == (3000, len(ATTRIBUTES)) and 12 <= len(set(ATTRIBUTES)) <= 20
    share = dict(zip(ATTRIBUTES, table.mean(axis=0), strict=True))
    assert {name: s for name, s in share.items() if not 0.10 <= s <= 0.60} == {}
    colors = [ATTRIBUTES.index(f"{color}_Hair") for color in ("Black", "Blond", "Brown", "Gray")]
    assert table[:, colors].sum(axis=1).max() == 1


def test_hair_color_shows_over_the_forehead():
    crown = np.s_[60:70, 79:100]
    means = {
        color: pixels(plain_face(hair_color=color, hair_tone=0.5))[crown].mean(axis=(0, 1))
        for color in ("black", "brown", "blond", "gray")
    }
    assert means["black"].max() < 60 < means["brown"].mean() < means["blond"].mean()
    assert means["blond"][0] - means["blond"][2] > 60  # Yellow: red well above blue.
    assert np.ptp(means["gray"]) < 10 and means["gray"].mean() > 120


def changed(name: str, low: object, high: object, area: tuple[slice, slice]) -> float:
    """Share of the change of a picture that falls in an area when one factor changes."""
    change = np.abs(pixels(plain_face(**{name: low})) - pixels(plain_face(**{name: high})))
    assert change.mean() > 0.05
    return change[area].sum() / change.sum()


def test_each_factor_changes_its_own_part_of_the_picture():
    eyes, mouth = np.s_[92:132, 30:150], np.s_[140:180, 55:125]
    assert changed("glasses", False, True, eyes) > 0.95
    assert changed("gaze_x", -3.5, 3.5, eyes) > 0.99
    assert changed("eye_opening", 3.3, 7.0, eyes) > 0.99
    assert changed("brow_thickness", 2.0, 4.5, np.s_[85:115, 40:140]) > 0.99
    assert changed("smile", 0.0, 1.0, mouth) > 0.9
    assert changed("mouth_opening", 0.0, 8.0, mouth) > 0.95
    assert changed("beard", 0.0, 1.0, np.s_[120:200, 25:155]) > 0.95
    assert changed("hat", False, True, np.s_[20:100, 0:178]) > 0.99
    assert changed("hair_length", 0.1, 0.9, np.s_[100:218, 0:178]) > 0.85


def test_glasses_leave_the_pupils_visible():
    bare, worn = (pixels(plain_face(glasses=glasses)) for glasses in (False, True))
    for side in (-1, 1):
        column = round(89 + side * plain_face().eye_spacing)
        pupil = np.s_[112:115, column - 1 : column + 2]
        assert bare[pupil].mean() < 60 and worn[pupil].mean() < 110


def test_face_is_centred_and_fills_the_crop():
    bald = pixels(plain_face(bald=True, blush=0.0, light_x=0.0))
    skin = bald[135, 70]
    row = np.abs(bald[116] - skin).sum(axis=1) < 90
    assert row.sum() > 0.4 * 178
    assert abs(np.flatnonzero(row).mean() - 88.5) < 2

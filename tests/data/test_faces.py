"""Procedural faces: a function of (seed, index), CelebA's layout, attributes that are visible."""

import json
import subprocess
import sys
import time
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import faces
from vae_jax.data.faces import (
    ATTRIBUTES,
    FaceFactors,
    face_attributes,
    face_factors,
    render_face,
    write_faces,
)
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


def files_of(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces") / "set"
    assert write_faces(root, 20, seed=3, workers=1) == 20
    return root


def test_face_is_a_function_of_seed_and_index():
    first = face_factors(1, 2)
    face_factors(9, 9)
    assert face_factors(1, 2) == first
    np.testing.assert_array_equal(pixels(first), pixels(face_factors(1, 2)))
    for other in (face_factors(2, 2), face_factors(1, 3), face_factors(2, 1)):
        assert other != first
        assert np.abs(pixels(other) - pixels(first)).mean() > 5


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


def test_layout_is_that_of_celeba(written):
    names = [f"{i:06d}.jpg" for i in range(1, 21)]
    assert sorted(p.name for p in (written / "img_align_celeba").iterdir()) == names
    lines = (written / "list_attr_celeba.txt").read_text().split("\n")
    assert lines[0] == "20" and lines[1].split() == list(ATTRIBUTES) and lines[-1] == ""
    for index, line in enumerate(lines[2:-1]):
        name, *values = line.split()
        expected = face_attributes(face_factors(3, index))
        assert name == names[index]
        assert line == name + "".join(" " + value.rjust(2) for value in values)
        assert [int(value) for value in values] == [1 if e else -1 for e in expected]
    partition = (written / "list_eval_partition.txt").read_text().splitlines()
    parts = [0] * 16 + [1] * 2 + [2] * 2
    assert partition == [f"{name} {part}" for name, part in zip(names, parts, strict=True)]


def test_file_holds_its_face(written):
    with Image.open(written / "img_align_celeba" / "000004.jpg", formats=["JPEG"]) as image:
        stored = np.asarray(image, np.float64)
    assert stored.shape == (218, 178, 3)
    assert np.abs(stored - pixels(face_factors(3, 3))).mean() < 2.5


def test_files_do_not_depend_on_count_or_workers(written, tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "MIN_FACES_PER_WORKER", 1)
    monkeypatch.setattr(faces, "CHUNK", 3)
    write_faces(tmp_path / "set", 8, seed=3, workers=2)
    expected = files_of(written / "img_align_celeba")
    assert files_of(tmp_path / "set" / "img_align_celeba").items() <= expected.items()
    assert len(files_of(tmp_path / "set" / "img_align_celeba")) == 8


def test_interrupted_work_is_resumed_byte_for_byte(tmp_path, monkeypatch):
    root = tmp_path / "set"
    write_faces(root, 12, seed=4, workers=1)
    expected = files_of(root)
    folder = root / "img_align_celeba"
    (root / "list_eval_partition.txt").unlink()
    (root / "list_attr_celeba.txt").unlink()
    (folder / "000002.jpg").unlink()
    (folder / "000005.jpg").write_bytes(expected["img_align_celeba/000005.jpg"][:900])
    (folder / "000007.jpg").write_bytes(b"")
    assert write_faces(root, 12, seed=4, workers=1) == 3
    assert files_of(root) == expected

    def refuse(*_):
        raise AssertionError("drew a face although all were there")

    monkeypatch.setattr(faces, "render_face", refuse)
    assert write_faces(root, 12, seed=4) == 0
    assert files_of(root) == expected


def test_failure_leaves_no_half_written_file(tmp_path, monkeypatch):
    root = tmp_path / "set"
    draw = faces.render_face

    def fail_at_third(factors):
        if factors == face_factors(4, 2):
            raise KeyboardInterrupt
        return draw(factors)

    monkeypatch.setattr(faces, "render_face", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_faces(root, 6, seed=4, workers=1)
    assert sorted(files_of(root)) == [
        "faces.json",
        "img_align_celeba/000001.jpg",
        "img_align_celeba/000002.jpg",
    ]
    monkeypatch.undo()
    assert write_faces(root, 6, seed=4, workers=1) == 4


@pytest.mark.parametrize(
    "changes", [{"count": 21}, {"seed": 4}, {"splits": (0.5, 0.25, 0.25)}], ids=str
)
def test_directory_of_other_faces_is_refused(written, changes):
    before = files_of(written)
    with pytest.raises(UserError, match="name another one"):
        write_faces(written, **{"count": 20, "seed": 3, "workers": 1, **changes})
    assert files_of(written) == before


def test_directory_of_other_drawing_is_refused(written, monkeypatch):
    monkeypatch.setattr(faces, "DRAWING_VERSION", faces.DRAWING_VERSION + 1)
    with pytest.raises(UserError, match="drawing_version"):
        write_faces(written, 20, seed=3)


def test_celeba_itself_is_never_written_into(tmp_path):
    (tmp_path / "list_attr_celeba.txt").write_text("202599\n")
    with pytest.raises(UserError, match="perhaps CelebA itself"):
        write_faces(tmp_path, 2, seed=0)
    assert list(files_of(tmp_path)) == ["list_attr_celeba.txt"]


def test_unreadable_manifest_is_refused(tmp_path):
    (tmp_path / "faces.json").write_text("{")
    with pytest.raises(UserError, match="unreadable"):
        write_faces(tmp_path, 2, seed=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"count": 0}, "count of faces is 0"),
        ({"count": 1_000_000}, "count of faces"),
        ({"seed": -1}, "seed -1"),
        ({"workers": 0}, "workers is 0"),
        ({"splits": (0.5, 0.1, 0.1)}, "shares that add to 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_faces(tmp_path / "set", **{"count": 4, "seed": 0, **arguments})
    assert not (tmp_path / "set").exists()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_faces(tmp_path / "set", 2, seed=0)


def test_small_sets_have_every_row_in_one_split(tmp_path):
    write_faces(tmp_path, 1, seed=0)
    assert (tmp_path / "list_eval_partition.txt").read_text() == "000001.jpg 0\n"
    assert json.loads((tmp_path / "faces.json").read_text())["count"] == 1


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


def test_worker_imports_stay_free_of_jax():
    code = "import sys, vae_jax.data.faces; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_workers_leave_with_a_killed_parent(tmp_path):
    command = (
        f"from vae_jax.data.faces import write_faces; write_faces({str(tmp_path)!r}, 20000, 0, 2)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    while not list(tmp_path.rglob("0*.jpg")):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.communicate(timeout=20)  # The pipe ends with the last process that holds it.

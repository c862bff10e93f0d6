"""Folders of procedural faces: CelebA's layout, resumed and refused as a user would expect."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vae_jax.data.faces import files as faces
from vae_jax.data.faces.factors import ATTRIBUTES, face_attributes, face_factors
from vae_jax.data.faces.files import write_faces
from vae_jax.types import UserError


def files_of(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces") / "set"
    assert write_faces(root, 20, seed=3, workers=1) == 20
    return root


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
    drawn = np.asarray(faces.render_face(face_factors(3, 3)), np.float64)
    assert np.abs(stored - drawn).mean() < 2.5


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


def test_workers_leave_with_a_killed_parent(tmp_path):
    code = (
        "import sys; from vae_jax.data.faces.files import write_faces; "
        "write_faces(sys.argv[1], 20000, 0, 2)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    while not list(tmp_path.rglob("0*.jpg")):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.communicate(timeout=20)  # The pipe ends with the last process that holds it.

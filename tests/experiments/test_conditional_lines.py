"""The command lines of conditional and of restoring models, on a tiny model that is both."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import classifier_faces, tiny
from vae_jax.train.trainer import fit

NAMES = ("Red", "Green", "Blue")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_store):
    """A model told three attributes, with half of its pixels lost; and a classifier of two."""
    home = tmp_path_factory.mktemp("conditional")
    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.data.condition, config.data.attributes = "attributes", NAMES
    config.data.corruption.drop_fraction = 0.5
    fit(config, home / "run", lambda line: None)
    judge = classifier_faces.get_config()
    judge.data = config.data.copy_and_resolve_references()
    judge.data.attributes, judge.data.corruption.drop_fraction = NAMES[::2], 0.0
    judge.classifier.filters = judge.classifier.kernel_sizes = (4,)
    judge.classifier.strides, judge.classifier.padding = (2,), ("same",)
    judge.train.batch_size, judge.train.epochs = 8, 1
    fit(judge, home / "judge", lambda line: None)
    return home


def test_samples_of_asked_attributes(command, trained):
    run, out = f"--workdir={trained / 'run'}", trained / "asked.png"
    command("sample", run, "--attributes=Blue=1,Red=0", "--count=3", f"--out={out}")
    with Image.open(out) as image:
        assert image.text["condition"] == "Red=0,Green=0,Blue=1"
    output = command("sample", run, "--attributes=Smiling=1", f"--out={out}", expect=2)
    assert "valid are Red, Green, Blue" in output and "Traceback" not in output


def test_what_the_condition_does(command, trained):
    output = command(
        "conditional", f"--workdir={trained / 'run'}", f"--classifier={trained / 'judge'}",
        "--columns=4", "--count=11",
    )  # fmt: skip
    out = trained / "run" / "conditional"
    measured = json.loads((out / "results.json").read_text())["results"]["rates"]
    assert set(measured) == {"Red", "Blue"}
    assert 0 <= measured["Red"]["asked"] <= 1
    assert "Red" in output and "classifier itself is right on" in output
    html = (out / "index.html").read_text()
    for name, rows in (("attributes", 7), ("edited", 8)):
        assert f"{name}.png" in html
        with Image.open(out / f"{name}.png") as image:
            assert image.size == (2 + 4 * 66, 2 + rows * 66)


def test_restored_images_beside_the_baselines(command, trained):
    output = command("restore", f"--workdir={trained / 'run'}", "--count=11", "--shown=8")
    out = trained / "run" / "restoration"
    content = json.loads((out / "results.json").read_text())
    made, kept = (
        content["results"]["scores"][name]
        for name in ("as they come out", "kept pixels as they were")
    )
    assert content["facts"]["corruption"] == "50% of the pixels lost to black"
    assert made["clean images"]["psnr"] == pytest.approx(54.15, abs=0.01)
    assert kept["the model"]["psnr"] > made["the model"]["psnr"]
    assert kept["the model"]["psnr_erased"] == pytest.approx(made["the model"]["psnr_erased"])
    assert kept.keys() == made.keys() - {"clean images"}  # like for like
    assert "total variation of filled images" in kept and "median filter 3x3" in output
    assert "restoration.png" in (out / "index.html").read_text()


def test_encoding_takes_the_condition_from_the_store(command, trained, tiny_store, tmp_path):
    run, out = f"--workdir={trained / 'run'}", tmp_path / "latents.npz"
    command("encode", run, f"--images={tiny_store}", f"--out={out}")
    assert np.load(out)["mean"].shape == (48, 4)
    folder = tmp_path / "jpeg"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(folder / f"{i}.png")
    output = command("encode", run, f"--images={folder}", f"--out={out}", expect=2)
    assert "has no labels, but this model was told Red, Green, Blue" in output

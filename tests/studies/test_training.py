"""What a training leaves to look at: pictures of what the model was trained on, and its curves."""

import shutil

import jax
import numpy as np
import pytest
from idx_files import write_idx
from PIL import Image

from configs import tiny
from vae_jax.data.inputs import evaluation_pair, make_input_stage
from vae_jax.data.splits import open_splits
from vae_jax.report.pictures import GAP, to_uint8
from vae_jax.run import decode, encode, open_run
from vae_jax.run_folder import read_config, read_rows, write_config
from vae_jax.streams import stream_key
from vae_jax.studies.training import COLUMNS, draw_run, loss_curves
from vae_jax.train.trainer import fit

SHOWN = 4


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One epoch on 16 grey images, binarised anew in every step."""
    home = tmp_path_factory.mktemp("binarised")
    rng = np.random.default_rng(0)
    for stem, count in (("train", 16), ("t10k", SHOWN)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(home / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(home / f"{stem}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))
    config = tiny.get_config()
    config.data.name, config.data.path = "mnist", str(home)
    config.data.image_shape, config.data.binarize = (28, 28, 1), "stochastic"
    config.eval.pictures, config.train.epochs = SHOWN, 1
    fit(config, home / "run", lambda _: None)
    return home / "run"


def shown_rows(path):
    """The images of a picture, `[rows, SHOWN, 28, 28]` uint8."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    size = 2 * 28  # enlarged by two
    tiles = [
        [pixels[top : top + size : 2, left : left + size : 2]
         for left in GAP + np.arange(SHOWN) * (size + GAP)]
        for top in range(GAP, pixels.shape[0] - size, size + GAP)
    ]  # fmt: skip
    assert pixels.shape[1] == COLUMNS * (size + GAP) + GAP
    return np.array(tiles)


@pytest.mark.parametrize("binarize", ["stochastic", "fixed"])
def test_originals_and_encoded_images_are_binarised(workdir, tmp_path, binarize):
    shutil.copytree(workdir, tmp_path / "run")
    config = read_config(workdir)
    config.data.binarize = binarize
    write_config(tmp_path / "run", config)
    _, path, *_ = draw_run(tmp_path / "run")
    originals, back = shown_rows(path)

    run = open_run(tmp_path / "run")
    images = open_splits(config.data).test.take(np.arange(SHOWN))
    key = stream_key(jax.random.key(config.seed), "evaluation")
    inputs, targets = evaluation_pair(make_input_stage(config.data), key, images, 0)
    assert set(np.unique(originals)) == {0, 255}
    np.testing.assert_array_equal(originals, to_uint8(np.asarray(targets))[..., 0])
    mean, _ = encode(run.model, run.variables, np.asarray(inputs))
    wanted = to_uint8(decode(run.model, run.variables, mean))[..., 0].astype(int)
    assert np.abs(back - wanted).max() <= 1  # a rounding apart at most
    config.data.binarize = "none"
    grey = open_splits(config.data).test.take(np.arange(SHOWN))
    mean, _ = encode(run.model, run.variables, grey)
    other = to_uint8(decode(run.model, run.variables, mean))[..., 0].astype(int)
    assert np.abs(back - other).max() > 1  # grey images give others


def test_a_training_leaves_a_page_of_its_pictures(workdir):
    names = [path.name for path in draw_run(workdir)]
    assert names == [
        "samples.png", "reconstructions.png", "curves.png", "results.json", "index.html",
    ]  # fmt: skip
    html = (workdir / "index.html").read_text()
    assert all(f'src="{name}"' in html for name in names[:3])
    row = read_rows(workdir)[-1]
    assert f"After 1 of 1 epochs, on test images: loss {row['loss']:.1f}" in html
    (workdir / "metrics.jsonl").unlink()  # as after a stop within the first epoch
    draw_run(workdir, "python -m <this>")
    html = (workdir / "index.html").read_text()
    assert "in its first epoch" in html and "python -m &lt;this&gt;" in html


def test_curves_show_every_split_and_leave_out_what_is_missing():
    rows = [
        {"split": "train", "epoch": 1, "loss": 5.0, "recon_nats": 4.0, "kl": 1.0},
        {"split": "test", "epoch": 1, "loss": 6.0, "recon_nats": 4.5, "kl": 1.5},
        {"split": "train", "epoch": 2, "loss": None, "recon_nats": 3.0, "kl": 2.0},
    ]
    figure = loss_curves(rows)
    lines = [[line.get_xydata().tolist() for line in axis.lines] for axis in figure.axes]
    assert lines[0] == [[[1, 5.0]], [[1, 6.0]]]
    assert lines[2] == [[[1, 1.0], [2, 2.0]], [[1, 1.5]]]

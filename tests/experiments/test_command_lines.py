"""Every entry point as a user runs it, in processes of their own, on configs/tiny.py."""

import json
import shutil

import forks
import numpy as np
import pytest
from PIL import Image

from vae_jax.run import open_run
from vae_jax.subject import open_subject


def picture(path):
    """Size, text chunks and pixels of an image file."""
    with Image.open(path) as image:
        return image.size, getattr(image, "text", {}), image.tobytes()


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """A run of configs/tiny.py on procedural faces that were drawn for it."""
    home = tmp_path_factory.mktemp("tiny")
    workdir = home / "run"
    output = command(
        "train",
        "--config=configs/tiny.py",
        f"--workdir={workdir}",
        f"--config.data.path={home / 'faces'}",
    )
    return workdir, home, output


def test_train_draws_faces_and_leaves_everything_behind(trained):
    workdir, home, output = trained
    assert {path.name for path in workdir.iterdir()} >= {
        "config.json", "metrics.jsonl", "checkpoints", "samples.png", "reconstructions.png",
    }  # fmt: skip
    for text in ("encoder in all", "beta 9", "epoch 2/2", "samples.png"):
        assert text in output
    source = home / "faces" / "48-seed0" / "jpeg"
    assert picture(source / "img_align_celeba" / "000001.jpg")[0] == (178, 218)
    assert (source / "list_attr_celeba.txt").read_text().startswith("48\n")
    _, facts, _ = picture(workdir / "samples.png")
    assert facts["seed"] == "0" and int(facts["checkpoint_step"]) == 10
    assert len(facts["config_digest"]) == 16


def test_samples_depend_on_seed_and_index_alone(command, trained):
    workdir, home, _ = trained
    for name, count in (("many", 70), ("few", 3)):
        command(
            "sample",
            f"--workdir={workdir}",
            "--seed=33",
            f"--count={count}",
            f"--out={home / name}.png",
            f"--latents={home / name}-z.npy",
            f"--arrays={home / name}-x.npy",
            "--sharpen",
        )
    for kind in ("z", "x"):
        many, few = (np.load(home / f"{name}-{kind}.npy") for name in ("many", "few"))
        np.testing.assert_array_equal(few, many[:3])
    assert np.load(home / "many-x.npy").dtype == np.float32
    raw, sharp = (picture(home / name) for name in ("few.png", "few-sharpened.png"))
    assert raw[1]["seed"] == "33"
    assert raw[0] == sharp[0] and raw[2] != sharp[2]


def test_given_points_are_decoded(command, trained):
    workdir, home, _ = trained
    z = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.save(home / "given.npy", z)
    paths = (f"--latents_in={home / 'given.npy'}", f"--out={home / 'given.png'}")
    command("sample", f"--workdir={workdir}", *paths, f"--arrays={home / 'given-x.npy'}")
    assert np.load(home / "given-x.npy").shape == (5, 16, 16, 3)
    np.save(home / "given.npy", z[:, :3])
    output = command("sample", f"--workdir={workdir}", *paths, expect=2)
    assert "holds float32 of shape (5, 3)" in output and "[N, 4]" in output
    assert "Traceback" not in output


def test_encode_a_store_and_a_folder(command, trained):
    workdir, home, _ = trained
    store = home / "faces" / "48-seed0" / "16"
    folder = home / "faces" / "48-seed0" / "jpeg" / "img_align_celeba"
    for images, count in ((store, 48), (folder, 48)):
        out = home / "latents.npz"
        command("encode", f"--workdir={workdir}", f"--images={images}", f"--out={out}")
        latents = np.load(out)
        assert latents["mean"].shape == latents["log_var"].shape == (count, 4)
        assert latents["files"][0] == "000001.jpg"


def test_data_that_lie_elsewhere_are_named(command, trained):
    workdir, home, _ = trained
    moved, nowhere = shutil.copytree(workdir, home / "moved"), home / "nowhere"
    text = (moved / "config.json").read_text()
    (moved / "config.json").write_text(text.replace(str(home / "faces"), str(nowhere)))
    output = command("evaluate", f"--workdir={moved}", expect=2)
    assert f"{str(nowhere)!r}, which does not exist: set --data=PATH to where" in output
    assert not nowhere.exists()
    run = open_run(moved, data=str(home / "faces"))
    assert len(open_subject(run, "train").images) == 38


def test_the_same_command_resumes_and_more_epochs_train_on(command, trained):
    workdir, home, _ = trained
    arguments = (
        "--config=configs/tiny.py", f"--workdir={workdir}",
        f"--config.data.path={home / 'faces'}",
    )  # fmt: skip
    assert "finished already at step 10" in command("train", *arguments)
    output = command("train", *arguments, "--config.train.epochs=3")
    assert "resuming at step 10" in output and "epoch 3/3" in output
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [5, 5, 5, 10, 10, 10, 15, 15, 15]  # train, validation, test


def test_a_mistake_is_one_sentence(command, tmp_path):
    output = command(
        "train",
        "--config=configs/tiny.py",
        f"--workdir={tmp_path / 'run'}",
        "--config.train.epochs=-5",
        expect=2,
    )
    assert output.strip().splitlines()[-1].startswith("error: config.train.epochs is -5")
    assert "Traceback" not in output


NAN = """
import runpy
import jax.numpy as jnp
from vae_jax.train import step
pair = step.training_pair
step.training_pair = lambda *args: tuple(x + 0 * jnp.log(-1 - x) for x in pair(*args))
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def test_debug_nans_names_the_operation(tiny_store, tmp_path):
    """The logarithm of a negative number, in a step, in a compiled loop over steps."""
    done = forks.run(
        "-c", NAN, "--debug_nans", "--config=configs/tiny.py", f"--workdir={tmp_path}",
        "--config.data.name=celeba", f"--config.data.path={tiny_store}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "FloatingPointError: invalid value (nan) encountered in log\n" in done.stderr
    assert "vae_jax/train/step.py" in done.stderr and "in draw" in done.stderr

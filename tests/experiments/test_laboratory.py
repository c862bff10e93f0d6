"""The laboratory's command lines on one tiny run, in processes of their own."""

import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_jax.run import decode, encode, open_run
from vae_jax.train.trainer import fit

# As in the README: JAX and NumPy alone.
SNIPPET = """
import json
import numpy as np
from jax import export

meaning = json.load(open("exported/decoder.json"))
decode = export.deserialize(open("exported/decoder.jax", "rb").read()).call
z = np.random.default_rng(0).normal(size=(5, meaning["inputs"]["z"]["shape"][1]))
np.save("images.npy", decode(z.astype(np.float32)))
encode = export.deserialize(open("exported/encoder.jax", "rb").read()).call
np.save("mean.npy", encode(np.load("images.npy"))[0])
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tiny_store):
    from configs import tiny

    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.train.epochs = 1
    directory = tmp_path_factory.mktemp("laboratory") / "run"
    fit(config, str(directory))
    return directory


KEYS = {
    "elbo", "elbo_standard_error", "iw_bound", "iw_bound_standard_error", "iw_samples", "kl",
    "recon_nats", "active_units", "mse", "psnr", "ssim", "sliced_wasserstein",
    "sliced_wasserstein_floor", "sliced_wasserstein_contrast", "spaces", "seed", "images",
}  # fmt: skip


def results_of(folder):
    """The numbers of a page, every picture of which lies beside it, and what is said of them."""
    written = json.loads((folder / "results.json").read_text())
    page = (folder / "index.html").read_text()
    sources = re.findall(r'src="([^"]+)"', page)
    assert sources and all((folder / name).is_file() for name in sources)
    assert "http" not in page and written["command"] in html.unescape(page)
    return written["results"], written["facts"]


def test_evaluate_writes_numbers_and_a_page(command, workdir):
    arguments = (f"--workdir={workdir}", "--split=train", "--samples=6", "--shown=4")
    printed = command("evaluate", *arguments, "--features=pixels_8x8,pixels")
    folder = workdir / "evaluation"
    found, facts = results_of(folder)
    assert found.keys() >= KEYS and "fid" not in found
    assert found["images"] == 37 and facts["split"] == "train"
    assert found["elbo"] == pytest.approx(-(found["recon_nats"] + found["kl"]))
    assert found["iw_bound"] > found["elbo"] and found["generated"] == 18
    assert list(found["spaces"]) == ["pixels_8x8", "pixels"]
    assert found["spaces"]["pixels"]["floor"]["recall"] > found["spaces"]["pixels"]["recall"]
    assert "ELBO, nats per image" in printed and "evaluation/index.html" in printed
    assert (workdir / "index.html").read_text().count("evaluation/index.html") == 1
    text = (folder / "results.json").read_text()
    command("evaluate", *arguments, "--features=pixels_8x8,pixels")
    assert (folder / "results.json").read_text() == text


def test_random_latents_compares_runs(command, workdir, tmp_path):
    command(
        "random_latents", f"--workdir={workdir}", f"--workdir={workdir}", "--split=train",
        "--points=8", "--seeds=2", "--columns=3", f"--out={tmp_path}",
    )  # fmt: skip
    found, facts = results_of(tmp_path)
    assert list(found) == ["run", "run-2"] and found["run"] == found["run-2"]
    one = found["run"]
    assert len(one["rows"]) == 26 and one["points"] == 8 and one["seeds"] == [0, 1]
    assert one["floor"]["sliced_wasserstein"] > 0 and one["floor"]["sliced_wasserstein_std"] > 0
    assert facts["run, points per row"] == "8"
    message = command("random_latents", f"--workdir={workdir}", expect=2)
    assert "error: Judging random points needs 16 real images" in message
    message = command("random_latents", f"--workdir={workdir}", f"--workdir={workdir}", expect=2)
    assert "--out=FOLDER" in message


def test_latent_space_pages(command, workdir, tmp_path):
    command(
        "latent_space", f"--workdir={workdir}", "--split=train", "--pairs=2", "--steps=4",
        "--grid=3", "--attributes=Red", f"--out={tmp_path}",
    )  # fmt: skip
    shape, _ = results_of(tmp_path / "posterior")
    assert shape["images"] == 37
    ways, _ = results_of(tmp_path / "paths")
    # A cross-fade is even: length 1, no second difference.
    fade = ways["between_images"]["cross-fade"]
    assert fade["path_length"] == pytest.approx(1, abs=1e-4) and fade["second_difference"] < 1e-3
    assert set(ways["attributes"]) == {"Red", "Green", "Blue"}
    assert set(ways["change_by_block"]) == {"1", "2", "4"}
    message = command(
        "latent_space", f"--workdir={workdir}", "--split=train", "--attributes=Hat", expect=2
    )
    assert "'Hat' is not an attribute" in message and "Traceback" not in message


@pytest.mark.skipif(
    importlib.util.find_spec("flatbuffers") is None, reason="needs the extra `export`"
)
def test_exported_networks_run_without_this_package(command, workdir, tmp_path):
    command("export", f"--workdir={workdir}", f"--out={tmp_path / 'exported'}")
    elsewhere = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    guard = "import sys; sys.modules['vae_jax'] = sys.modules['flax'] = None\n"
    extra = Path(importlib.util.find_spec("flatbuffers").origin).parents[1]
    guard += f"sys.path.append({str(extra)!r})\n"
    subprocess.run([sys.executable, "-c", guard + SNIPPET], cwd=tmp_path, env=elsewhere, check=True)
    run = open_run(workdir)
    z = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    images = decode(run.model, run.variables, z)
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), images, atol=1e-5)
    mean, _ = encode(run.model, run.variables, images)
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), mean, atol=1e-4)
    meaning = json.loads((tmp_path / "exported" / "encoder.json").read_text())
    assert meaning["inputs"]["images"]["shape"] == ["b", 16, 16, 3]
    assert meaning["config_digest"] == run.provenance["config_digest"]

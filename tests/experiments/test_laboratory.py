"""The laboratory's command lines on one tiny run, in processes of their own."""

import importlib.util
import json
import os
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
    "sliced_wasserstein_floor", "precision", "recall", "density", "coverage", "frechet_distance",
    "feature_space", "checkpoint_step", "config_digest", "split", "seed", "images",
}  # fmt: skip


def test_evaluate_writes_metrics_and_a_page_that_stands_alone(command, workdir):
    arguments = (f"--workdir={workdir}", "--split=train", "--samples=6", "--shown=4")
    command("evaluate", *arguments)
    text = (workdir / "metrics.json").read_text()
    metrics = json.loads(text)
    assert metrics.keys() >= KEYS and "fid" not in metrics
    assert metrics["images"] == 37 and metrics["split"] == "train"
    assert metrics["elbo"] == pytest.approx(-(metrics["recon_nats"] + metrics["kl"]))
    assert metrics["iw_bound"] > metrics["elbo"] and metrics["generated"] == 18
    page = (workdir / "evaluation.html").read_text()
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 2
    assert "http" not in page
    command("evaluate", *arguments)
    assert (workdir / "metrics.json").read_text() == text


def test_random_latents_compares_runs(command, workdir, tmp_path):
    command(
        "random_latents", f"--workdir={workdir}", f"--workdir={workdir}", "--split=train",
        "--points=8", "--columns=3", f"--out={tmp_path}",
    )  # fmt: skip
    result = json.loads((tmp_path / "random_latents.json").read_text())
    assert list(result["rows"]) == ["run", "run-2"]
    assert result["rows"]["run"] == result["rows"]["run-2"]
    assert len(result["rows"]["run"]) == 26 and result["floors"]["run"]["sliced_wasserstein"] > 0
    assert (tmp_path / "run.png").exists() and (tmp_path / "index.html").exists()
    message = command("random_latents", f"--workdir={workdir}", "--points=8", expect=2)
    assert message.strip().splitlines()[-1].startswith("error: --points is 8")


def test_latent_space_pages(command, workdir, tmp_path):
    command(
        "latent_space", f"--workdir={workdir}", "--split=train", "--pairs=2", "--steps=4",
        "--grid=3", "--attributes=Red", f"--out={tmp_path}",
    )  # fmt: skip
    result = json.loads((tmp_path / "latent_space.json").read_text())
    assert result["posterior"]["images"] == 37
    # A cross-fade is even: length 1, no second difference.
    fade = result["paths"]["between_images"]["cross-fade"]
    assert fade["path_length"] == pytest.approx(1, abs=1e-4) and fade["second_difference"] < 1e-3
    assert set(result["paths"]["attributes"]) == {"Red", "Green", "Blue"}
    assert set(result["paths"]["change_by_block"]) == {"1", "2", "4"}
    for page in ("posterior.html", "paths.html"):
        assert "data:image/png" in (tmp_path / page).read_text()
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

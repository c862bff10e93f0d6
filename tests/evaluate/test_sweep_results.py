"""What is measured of each member of a sweep, and what is left on disk."""

import csv
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from vae_jax.data.splits import open_splits
from vae_jax.evaluate import sweep_results
from vae_jax.evaluate.sweep_results import collect_results, write_results
from vae_jax.losses import gaussian_kl
from vae_jax.report.ablation import write_report
from vae_jax.report.pictures import image_grid, save_png
from vae_jax.run import decode, encode, open_run
from vae_jax.train.sweep import Outcome, fit_sweep


def draw(run, pictures):
    assert len(pictures.samples) == 16 and len(pictures.originals) == 8
    save_png(run.workdir / "samples.png", image_grid(pictures.samples, 4), {})
    return {"samples": "samples.png", "reconstructions": "samples.png"}


@pytest.fixture
def swept(tiny_config, tmp_path):
    with tiny_config.unlocked():
        tiny_config.sweep = ConfigDict(
            {"kl_weight": (0.5, 3.0), "z_dim": (), "learning_rate": (), "seed": (), "mode": "grid",
             "schedule": "in_turn", "same_batches": True, "memory_gib": 0.0}
        )  # fmt: skip
    return tiny_config, tmp_path, fit_sweep(tiny_config, tmp_path, lambda _: None)


def test_results_agree_with_the_model_and_are_written_as_json_csv_and_report(swept, monkeypatch):
    config, workdir, result = swept
    splits = open_splits(config.data)
    results = collect_results(config, workdir, result, splits, draw, lambda _: None)
    first, second = results["members"]
    assert [first["kl_weight"], second["kl_weight"]] == [0.5, 3.0]
    assert first["beta"] == 1.5 and first["z_dim"] == 4 and first["seed"] == 0
    images = splits.test.take(np.arange(11))
    run = open_run(workdir / "members" / first["name"])
    mean, log_var = encode(run.model, run.variables, images)
    assert first["kl"] == pytest.approx(float(gaussian_kl(mean, log_var).mean()), rel=1e-5)
    assert sum(first["kl_per_dimension"]) == pytest.approx(first["kl"], rel=1e-5)
    assert first["elbo"] == pytest.approx(-first["recon"] - first["kl"])
    error = np.square(images / 255.0 - decode(run.model, run.variables, mean)).mean(axis=(1, 2, 3))
    assert first["psnr"] == pytest.approx(float(np.mean(-10 * np.log10(error))), abs=1e-4)
    assert first["active_units"] == int((mean.var(axis=0, ddof=1) > 0.01).sum())
    assert 0 < first["sliced_wasserstein_floor"] < first["sliced_wasserstein"]
    assert first["radius"]["prior_mean"] == pytest.approx(1.88, abs=0.01)
    assert 1 <= first["covariance"]["effective_dimensions"] <= 4

    monkeypatch.setattr(sweep_results, "member_figures", None)  # Nothing is measured again.
    again = collect_results(config, workdir, result, splits, draw, lambda _: None)
    assert again["members"] == results["members"]

    name = second["name"]
    worse = result._replace(outcomes=result.outcomes | {name: Outcome("diverged", "NaN, alas", 5)})
    results = collect_results(config, workdir, worse, splits, draw, lambda _: None)
    bad = results["members"][1]
    assert (bad["status"], bad["reason"]) == ("diverged", "NaN, alas") and "psnr" not in bad
    write_results(workdir, results)
    assert json.loads((workdir / "results.json").read_text())["members"][0] == first
    with (workdir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["recon"]) == first["recon"] and rows[1]["status"] == "diverged"
    assert "NaN, alas" in write_report([workdir], workdir / "report.html").read_text()

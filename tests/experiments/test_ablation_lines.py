"""experiments.ablation and experiments.report as a user runs them."""

import json

import forks

SWEEP = """
from ml_collections import ConfigDict
from configs import ablation_faces, tiny

def get_config():
    config = tiny.get_config()
    config.sweep = ablation_faces.get_config().sweep
    config.sweep.z_dim, config.sweep.seed = (), ()
    return config
"""


def test_a_sweep_is_trained_measured_and_reported(command, tiny_store, tmp_path):
    config, workdir = tmp_path / "sweep.py", tmp_path / "sweep"
    config.write_text(SWEEP)
    arguments = (
        f"--config={config}", f"--workdir={workdir}", "--config.data.name=celeba",
        f"--config.data.path={tiny_store}", "--config.sweep.kl_weight=(0.0, 3)",
        "--config.train.epochs=1",
    )  # fmt: skip
    output = command("ablation", *arguments)
    for text in ("2/2 members", "measured 2/2", "results.csv", "index.html"):
        assert text in output
    content = json.loads((workdir / "ablation" / "results.json").read_text())
    results = content["results"]
    assert [row["test"]["beta"] for row in results["members"]] == [0.0, 9.0]
    assert results["differences"]["train.epochs"] == "1"
    assert content["command"].startswith("python -m experiments.ablation --config=")
    assert "2 members: 2 done" in command("ablation", *arguments)
    out = tmp_path / "again"
    command("report", f"--workdir={workdir}", f"--out={out}")
    again = json.loads((out / "results.json").read_text())["results"]
    assert again["members"] == results["members"]
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {path.name for path in (workdir / "ablation").glob("*.png")}
    bad = command("report", f"--workdir={tmp_path / 'none'}", f"--out={out}", expect=2)
    assert "has no ablation/results.json" in bad and "Traceback" not in bad


ALL_FAILED = """
import sys
from experiments import ablation, app
from vae_jax.train import sweep

def fit_sweep(config, workdir):
    members = sweep.sweep_members(config)
    outcomes = {member.name: sweep.Outcome("failed", "not enough memory", 0) for member in members}
    return sweep.SweepResult(members, outcomes, None)

sweep.fit_sweep = fit_sweep
app.run(ablation.main)
"""


def test_a_sweep_whose_members_all_failed_ends_with_an_error(tmp_path):
    done = forks.run(
        "-c", ALL_FAILED, "--config=configs/ablation_faces.py", f"--workdir={tmp_path}"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "error: no run of the sweep was trained; " in done.stderr
    assert ": not enough memory" in done.stderr

"""Train every member of a sweep over KL weight, z_dim, learning rate and seed, and compare them.

python -m experiments.ablation --config=configs/ablation_faces.py --workdir=runs/ablation_faces \
    --config.sweep.kl_weight='(0.0, 0.5, 3.0)' --config.sweep.z_dim='(2, 64)'

Leaves a run folder for each member in WORKDIR/members, and WORKDIR/ablation/index.html with its
pictures, results.json and results.csv. The same command resumes, and adding a value trains only
what is new. Samples of every member are drawn from N(0, I) and from a Gaussian fitted to its codes;
--priors=gaussian,mixture fits more kinds. Members that were measured with other settings are
measured again, from their checkpoints and without training. Differences between models need several
seeds to be resolved: --config.sweep.seed='(0, 1, 2, 3, 4)'.
With --coordinator=HOST:PORT --processes=N --process_id=I, or --distributed on a cluster, several
processes train together; all of them see the workdir.
Exit codes: 0 done, 2 a user's error, 128 + N after signal N (checkpoints saved; 143 SIGTERM,
130 SIGINT, 129 SIGHUP), 3 another process of the run is gone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import default
from experiments import app, cluster, command_line, publish
from experiments.config_file import ConfigFlag
from vae_jax.types import UserError

_CONFIG = ConfigFlag("Config file with a section `sweep`.")
_WORKDIR = command_line.workdir("sweep")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print members, groups, memory and time.")
_MEASURE = flags.DEFINE_bool("measure", True, "Measure the members and write the page.")
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Run folder of a classifier, in whose features samples are compared too."
)
_PRIORS = flags.DEFINE_list(
    "priors",
    ["gaussian"],
    "Priors to fit to every member's codes and to draw from, beside N(0, I).",
)
_OUT = command_line.out_below("ablation", "the page")


def main() -> int:
    """Trains the members, measures them, and writes the page."""
    config, workdir = _CONFIG.value, Path(_WORKDIR.value)

    from vae_jax.config import validate
    from vae_jax.data.splits import open_splits
    from vae_jax.devices import is_first
    from vae_jax.files import write_file
    from vae_jax.studies import ablation, sweep_measurement
    from vae_jax.studies.sweep_results import results_csv
    from vae_jax.train.sweep import describe_plan, fit_sweep, make_plan

    cluster.join()
    if _DRY_RUN.value:
        validate(config)
        splits = open_splits(config.data)
        print(describe_plan(make_plan(config, workdir, splits), splits))
        return 0
    options = sweep_measurement.Options(_CLASSIFIER.value, tuple(_PRIORS.value))
    trained = fit_sweep(config, workdir)
    if trained.interrupted_by is not None:
        if is_first():
            print("stopped; the same command resumes")
        return 128 + trained.interrupted_by
    if not any(outcome.status == "finished" for outcome in trained.outcomes.values()):
        name, outcome = next(iter(trained.outcomes.items()))
        raise UserError(f"no run of the sweep was trained; {name}: {outcome.reason}")
    if _MEASURE.value and is_first():
        splits = open_splits(config.data)
        result = sweep_measurement.measure(config, workdir, trained, splits, options)
        result = replace(result, differences=_differences(config))
        out = Path(_OUT.value)
        table = write_file(out / "results.csv", results_csv(result))
        page, numbers = ablation.page([result]), ablation.numbers([result])
        written = publish.publish(page, numbers, out, tables=False)
        command_line.tell([*written, table], "report", workdir=workdir)
    return 0


def _differences(config: ConfigDict) -> dict[str, str]:
    """Returns the fields that differ from configs/default.py."""
    from vae_jax.config import flatten

    usual = flatten(default.get_config())
    return {name: repr(value) for name, value in flatten(config).items()
            if name not in usual or usual[name] != value}  # fmt: skip


if __name__ == "__main__":
    app.run(main)

"""Train every member of a sweep over KL weight, z_dim, learning rate and seed, and compare them.

python -m experiments.ablation --config=configs/ablation_faces.py --workdir=runs/ablation_faces \
    --config.sweep.kl_weight='(0.0, 0.5, 3.0)' --config.sweep.z_dim='(2, 64)'

Leaves a run folder for each member in WORKDIR/members, and results.json, results.csv, report.html.
The same command resumes, and adding a value trains only what is new.
With --coordinator=HOST:PORT --processes=N --process_id=I, or --distributed on a cluster, several
processes train together; all of them see the workdir.
Exit codes: 0 done, 2 a user's error, 143 after SIGTERM and 130 after SIGINT (checkpoints saved), 3
another process of the run is gone.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import default
from experiments import app, cluster, command_line
from experiments.config_file import ConfigFlag

_CONFIG = ConfigFlag("Config file with a section `sweep`.")
_WORKDIR = command_line.workdir("sweep")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print members, groups, memory and time.")
_MEASURE = flags.DEFINE_bool("measure", True, "Measure the members and write the report.")


def main() -> int:
    """Trains, measures, reports."""
    config, workdir = _CONFIG.value, Path(_WORKDIR.value)

    from vae_jax.config import validate
    from vae_jax.data.splits import open_splits
    from vae_jax.devices import is_first
    from vae_jax.evaluate.sweep_results import collect_results, write_results
    from vae_jax.pages.members import draw_member
    from vae_jax.report.ablation import write_report
    from vae_jax.train.sweep import describe_plan, fit_sweep, make_plan

    cluster.join()
    if _DRY_RUN.value:
        validate(config)
        splits = open_splits(config.data)
        print(describe_plan(make_plan(config, workdir, splits), splits))
        return 0
    result = fit_sweep(config, workdir)
    if result.interrupted_by is not None:
        if is_first():
            print("stopped; the same command resumes")
        return 128 + result.interrupted_by
    if _MEASURE.value and is_first():
        splits = open_splits(config.data)
        results = collect_results(config, workdir, result, splits, draw_member)
        results["differences_from_default"] = _differences(config)
        for path in [
            *write_results(workdir, results),
            write_report([workdir], workdir / "report.html"),
        ]:
            print(f"wrote {path}")
    return 0


def _differences(config: ConfigDict) -> dict[str, str]:
    """Fields that configs/default.py has not or has otherwise."""
    from vae_jax.config import flatten

    usual = flatten(default.get_config())
    return {name: repr(value) for name, value in flatten(config).items()
            if name not in usual or usual[name] != value}  # fmt: skip


if __name__ == "__main__":
    app.run(main)

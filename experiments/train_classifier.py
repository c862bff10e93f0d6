"""Train the classifier that judges samples, or go on where the last run in the workdir ended.

python -m experiments.train_classifier --config=configs/classifier_mnist.py \
    --config.data.path=data/mnist --workdir=runs/classifier_mnist

Exit codes: 0 finished, 2 a user's error, 128 + N after signal N (checkpoint saved; 143 SIGTERM,
130 SIGINT, 129 SIGHUP).
"""

from __future__ import annotations

from experiments import app, command_line
from experiments.config_file import ConfigFlag
from vae_jax.types import UserError

_CONFIG = ConfigFlag("Config file with a section `classifier`.")
_WORKDIR = command_line.workdir("classifier's run")


def main() -> int:
    """Trains the classifier, and prints its accuracy on the test split."""
    config = _CONFIG.value
    if "classifier" not in config:
        raise UserError(
            "this config has no section `classifier`; configs/classifier_mnist.py has one"
        )

    from vae_jax.data.splits import open_splits
    from vae_jax.run_folder import read_rows
    from vae_jax.train.classification import accuracy_table
    from vae_jax.train.trainer import fit

    result = fit(config, _WORKDIR.value)
    if result.interrupted_by is not None:
        print(f"stopped at step {result.step}; the same command resumes there")
        return 128 + result.interrupted_by
    row = [row for row in read_rows(_WORKDIR.value) if row["split"] == "test"][-1]
    print(accuracy_table(config, row, open_splits(config.data).test))
    command_line.tell([_WORKDIR.value], "filters", workdir=_WORKDIR.value, layer="conv_0")
    return 0


if __name__ == "__main__":
    app.run(main)

"""Build the report of one or several sweeps again, from their results alone.

python -m experiments.report --workdir=runs/ablation_faces --workdir=runs/ablation_mnist \
    --out=report.html
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a sweep; may be repeated.", required=True
)
_OUT = command_line.out_file("report.html", "the page.")


def main() -> None:
    """Writes the report."""
    from vae_jax.report.ablation import write_report

    print(f"wrote {write_report(_WORKDIRS.value, _OUT.value)}")


if __name__ == "__main__":
    app.run(main)

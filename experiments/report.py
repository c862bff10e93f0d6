"""Build the report of one or several sweeps again, from their results alone.

python -m experiments.report --workdir=runs/ablation_faces --workdir=runs/ablation_mnist \
    --out=report.html
"""

from __future__ import annotations

from absl import flags

from experiments import app
from vae_jax.report.ablation import write_report

_WORKDIRS = flags.DEFINE_multi_string("workdir", None, "Folder of a sweep; may be repeated.")
_OUT = flags.DEFINE_string("out", "report.html", "HTML file to write.")


def main() -> None:
    """Write the report."""
    print(f"wrote {write_report(_WORKDIRS.value, _OUT.value)}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)

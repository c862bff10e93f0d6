"""Make one page of one or several sweeps, from their results alone.

python -m experiments.report --workdir=runs/ablation_faces --workdir=runs/ablation_mnist \
    --out=runs/report

Sweeps whose configs agree in all but what is swept become one. Writes OUT/index.html, the pictures
beside it and results.json.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a sweep; may be repeated.", required=True
)
_OUT = command_line.out_folder("runs/report", "the page and its pictures.")


def main() -> None:
    """Reads and merges the results, and writes the page."""
    from vae_jax.run_folder import MEMBERS
    from vae_jax.studies import ablation
    from vae_jax.studies.sweep_results import merge_results, read_results

    results = merge_results([read_results(workdir) for workdir in _WORKDIRS.value])
    page, numbers = ablation.page(results), ablation.numbers(results)
    written = publish.publish(page, numbers, _OUT.value, tables=False)
    member = results[0].members[0].name
    command_line.tell(written, "evaluate", workdir=f"{_WORKDIRS.value[0]}/{MEMBERS}/{member}")


if __name__ == "__main__":
    app.run(main)

"""The latent space of a trained model on two pages: its aggregate posterior, and paths through it.

python -m experiments.latent_space --workdir=runs/faces
python -m experiments.latent_space --workdir=runs/faces --attributes=Smiling,Eyeglasses --strength=2

Writes posterior.html, paths.html (which need no other file) and latent_space.json to
WORKDIR/latent_space. Images come from the test split; everything follows from (checkpoint, seed).
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.evaluate.run_metrics import finite_or_none
from vae_jax.pages.aggregate_posterior import posterior_page
from vae_jax.pages.latent_study import latent_study
from vae_jax.pages.paths import paths_page
from vae_jax.report.plain_page import write_page
from vae_jax.run import open_run, open_subject

_SPLIT = flags.DEFINE_string("split", "test", "Images: test or train.")
_COUNT = flags.DEFINE_integer("count", 10_000, "Images, at most; 0 for all.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of draws, choices and places.", lower_bound=0)
_PAIRS = flags.DEFINE_integer("pairs", 32, "Pairs of images to interpolate.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 10, "Points of a path.", lower_bound=3)
_GRID = flags.DEFINE_integer("grid", 12, "Images a side of the manifold chart.", lower_bound=2)
_ATTRIBUTES = flags.DEFINE_list("attributes", [], "Names to show; the clearest by default.")
_JOINT = flags.DEFINE_bool("joint", False, "Separate attributes that occur together.")
_STRENGTH = flags.DEFINE_float("strength", 2.0, "Largest multiple of an attribute's vector.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR/latent_space by default.")


def main() -> None:
    """Compute both pages and write them."""
    run = open_run(WORKDIR.value, STEP.value)
    subject = open_subject(run, _SPLIT.value, _COUNT.value)
    study = latent_study(subject, _SEED.value)
    posterior, summary = posterior_page(study, _GRID.value)
    paths, figures = paths_page(
        study, _PAIRS.value, _STEPS.value, tuple(_ATTRIBUTES.value), _JOINT.value, _STRENGTH.value
    )
    facts = run.provenance | {
        "split": _SPLIT.value, "images": f"{len(subject.images):,}", "seed": str(_SEED.value),
    }  # fmt: skip
    out = Path(_OUT.value or Path(WORKDIR.value) / "latent_space")
    out.mkdir(parents=True, exist_ok=True)
    write_page(out / "posterior.html", "Aggregate posterior", facts, posterior)
    write_page(out / "paths.html", "Paths through latent space", facts, paths)
    result = finite_or_none({"facts": facts, "posterior": summary, "paths": figures})
    (out / "latent_space.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    print(
        f"KL {summary['kl']:.2f} nats, {summary['active_units']} of {summary['z_dim']} active, "
        f"radius {summary['radius']['mean']:.2f} (N(0, I): {summary['radius_prior']['mean']:.2f})"
    )
    print(f"wrote {out / 'posterior.html'}, paths.html, latent_space.json")


if __name__ == "__main__":
    app.run(main)

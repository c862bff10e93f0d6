"""Likelihood and quality of a trained model, in numbers and pictures.

python -m experiments.evaluate --workdir=runs/faces
python -m experiments.evaluate --workdir=runs/iwae_mnist --samples=5000 --count=1000

Writes WORKDIR/metrics.json and WORKDIR/evaluation.html, which needs no other file. Every figure
follows from (checkpoint, seed, counts). FID needs activations of the Inception network, which is
not part of this package: give your own with --inception=FILE.npz (arrays real and fake, [N, 2048]).
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments import app
from vae_jax.evaluate import run_metrics
from vae_jax.evaluate.published import published_nll
from vae_jax.evaluate.subject import chosen_images, encode_subject, open_subject, reconstructions
from vae_jax.report.evaluation import write_evaluation
from vae_jax.report.pictures import image_grid, paired_rows
from vae_jax.workdir import open_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint step; the newest by default.")
_SPLIT = flags.DEFINE_string("split", "test", "Images: test or train.")
_COUNT = flags.DEFINE_integer("count", 0, "Images, at most; 0 for all.", lower_bound=0)
_SAMPLES = flags.DEFINE_integer("samples", 50, "Importance samples an image.", lower_bound=1)
_GENERATED = flags.DEFINE_integer("generated", 1000, "Prior samples, at most.", lower_bound=8)
_FEATURES = flags.DEFINE_string("features", "encoder_mean", "Space: encoder_mean or pixels_8x8.")
_INCEPTION = flags.DEFINE_string("inception", None, "Your activations (.npz); adds fid.")
_SEED = flags.DEFINE_integer("seed", 0, "Of samples and choices.", lower_bound=0)
_BY = flags.DEFINE_enum("by", "mean", ["mean", "sample"], "What reconstructions decode.")
_SHOWN = flags.DEFINE_integer("shown", 16, "Images in each picture.", lower_bound=1)
_REFERENCE = flags.DEFINE_bool("reference_choice", False, "Choose them as the reference does.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR by default.")
COLUMNS = 8


def main() -> None:
    """Measure, write, and print what was measured."""
    fid = run_metrics.fid_of_file(_INCEPTION.value) if _INCEPTION.value else {}
    run = open_run(_WORKDIR.value, _STEP.value)
    subject = open_subject(run, _SPLIT.value, _COUNT.value)
    seen, seed = encode_subject(subject), _SEED.value
    sample_key = jax.random.key(seed) if _BY.value == "sample" else None
    back = reconstructions(subject, seen, np.arange(len(seen.mean)), sample_key)
    facts = run.provenance | {
        "split": _SPLIT.value,
        "images": f"{len(subject.images):,}",
        "seed": str(seed),
        "reconstructions": f"of the {_BY.value}",
    }
    metrics = dict(facts) | {"images": len(seen.mean), "seed": seed, "step": run.step}
    metrics |= run_metrics.reconstruction_metrics(seen.targets, back)
    metrics |= run_metrics.likelihood_metrics(subject, seen, _SAMPLES.value, seed)
    scores, samples = run_metrics.sample_metrics(subject, seed, _GENERATED.value, _FEATURES.value)
    metrics = run_metrics.finite_or_none(metrics | scores | fid)
    if "iw_bound" in metrics:
        metrics["published_nll"] = published_nll(run.config.data)
    out = Path(_OUT.value or _WORKDIR.value)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    shown = chosen_images(_SHOWN.value, len(back), seed, _REFERENCE.value)
    rows = paired_rows([seen.targets[shown], back[shown]], COLUMNS)
    pictures = {
        "Images and their reconstructions": (
            f"Images {', '.join(map(str, shown))} of the split, decoded by the {_BY.value}.",
            image_grid(rows, COLUMNS),
        ),
        "Prior samples": (
            f"Points 0 to {min(len(samples), 32) - 1} of seed {seed}, as experiments.sample has.",
            image_grid(samples[:32], COLUMNS),
        ),
    }
    write_evaluation(out / "evaluation.html", metrics, facts, pictures)
    for name, value in metrics.items():
        if isinstance(value, float | int):
            print(f"{name:28} {value:.6g}")
    for name, value in metrics.get("published_nll", {}).items():
        print(f"published: {name}: {value:.2f} nats; here {-metrics['iw_bound']:.2f}")
    print(f"wrote {out / 'metrics.json'}, {out / 'evaluation.html'}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)

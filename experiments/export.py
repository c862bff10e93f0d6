"""Export decoder, encoder and sampler as jax.export artifacts that run without this package.

python -m experiments.export --workdir=runs/faces --out=exported

Writes OUT/decoder.jax, OUT/encoder.jax, OUT/sampler.jax and a JSON of the meaning beside each; the
sampler draws points of --prior. To run them, with JAX and NumPy alone:

    import jax, numpy as np
    from jax import export
    sample, decode = (
        export.deserialize(open(f"exported/{name}.jax", "rb").read()).call
        for name in ("sampler", "decoder")
    )
    images = decode(sample(np.uint32(33), np.arange(5, dtype=np.uint32)))  # seed 33, points 0 to 4
"""

from __future__ import annotations

from experiments import app, command_line
from experiments.pair_flags import asked_pair
from experiments.prior_flags import asked_prior
from experiments.run_flags import STEP, WORKDIR

_OUT = command_line.out_folder("exported", "the artifacts and a JSON beside each.")


def main() -> None:
    """Exports both networks and the sampler."""
    from vae_jax.checkpoint.saving import NETWORKS
    from vae_jax.interop.export import write_artifact, write_sampler
    from vae_jax.run import open_run

    run = open_run(WORKDIR.value, STEP.value, pair=asked_pair())
    written = write_sampler(run, asked_prior(run), _OUT.value)
    for network in NETWORKS:
        written += write_artifact(run, network, _OUT.value)
    for path in written:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    command_line.tell((), "sample", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)

"""Export decoder and encoder as jax.export artifacts that run without this package.

python -m experiments.export --workdir=runs/faces --out=exported

Writes OUT/decoder.jax, OUT/encoder.jax and a JSON of the meaning beside each. To run one, with JAX
and NumPy alone:

    import jax, numpy as np
    from jax import export
    decode = export.deserialize(open("exported/decoder.jax", "rb").read()).call
    images = decode(np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32))
"""

from __future__ import annotations

from experiments import app, command_line
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_OUT = command_line.out_folder("exported", "decoder.jax, encoder.jax and a JSON beside each.")


def main() -> None:
    """Exports both networks."""
    from vae_jax.checkpoint.saving import NETWORKS
    from vae_jax.interop.export import write_artifact
    from vae_jax.run import open_run

    run = open_run(WORKDIR.value, STEP.value, pair=asked_pair())
    for network in NETWORKS:
        for path in write_artifact(run, network, _OUT.value):
            print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    command_line.tell((), "sample", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)

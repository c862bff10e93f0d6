"""The peers by the names that `experiments.throughput --against` takes."""

from __future__ import annotations

from vae_jax.throughput.rounds import Program

_TORCH, _KERAS = ("torch",), ("keras", "tensorflow")
PEERS = {
    "flax": (Program("flax", "experiments.peers.flax_peer"),),
    "torch": (Program("torch", "experiments.peers.torch_peer", "eager", _TORCH),),
    "torch_compile": (Program("torch_compile", "experiments.peers.torch_peer", "compile", _TORCH),),
    "keras": (
        Program("keras", "experiments.peers.keras_peer", "graph", _KERAS),
        Program("keras_jit", "experiments.peers.keras_peer", "jit", _KERAS),
    ),
}
PILLOW = Program("pillow", "experiments.peers.pillow_peer", "96")

"""Made-up results of sweeps, for several tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import tiny
from vae_jax.studies.sweep_results import MeasuredMember, MeasuredSweep

SEEDS = (0, 1, 2, 3, 4)


def member(kl_weight, z_dim, seed, folder=Path("members"), **rest):
    """A made-up member: samples are best at w = 1 whatever Z, PSNR rises with Z; noise by seed."""
    noise = 0.002 * np.random.default_rng((seed, z_dim, int(kl_weight))).normal()
    own = {
        "beta": 3 * kl_weight, "recon": 100.0 + 5 * kl_weight + seed, "kl": 40.0 / (1 + kl_weight),
        "elbo": -140.0 - kl_weight + seed, "kl_share": 0.01 * kl_weight + noise,
        "active_units": z_dim, "psnr": 20.0 + z_dim + noise + 0.1 * seed,
        "sliced_wasserstein": 0.05 + 0.02 * abs(kl_weight - 1) + noise + 0.004 * seed,
        "sliced_wasserstein_floor": 0.02, "pixels_frechet": 1.0 + kl_weight + noise,
    }  # fmt: skip
    name = f"w{kl_weight:g}-z{z_dim}-lr0.001-s{seed}"
    curve = {"epoch": [1, 2], "loss": [9.0, 8.0], "recon_nats": [130.0, 101.0], "kl": [50.0, None]}
    made = MeasuredMember(
        name, z_dim, kl_weight, 1e-3, seed, "finished", "", 10, 1.5, "ab" * 8, {"test": curve},
        own, dict(own), [own["kl"] / z_dim] * z_dim, folder / name,
    )  # fmt: skip
    return replace(made, **rest)


def sweep_of(members, **rest):
    config = tiny.get_config()
    config.sweep = ConfigDict(
        {"kl_weight": (0.0, 1.0), "z_dim": (2, 8), "learning_rate": (), "seed": SEEDS,
         "mode": "grid", "schedule": "in_turn", "same_batches": True, "memory_gib": 0.0}
    )  # fmt: skip
    images = {"train": 1000, "validation": 90, "test": 100, "compared": 50}
    made = MeasuredSweep(
        ("runs/it",), config, images, {"created": "2026-01-01"},
        {"training": 75.0, "measuring": 3.0}, {}, tuple(members),
    )  # fmt: skip
    return replace(made, **rest)

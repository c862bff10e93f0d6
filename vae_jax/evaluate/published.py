"""Published bounds that a figure measured here can be held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Negative log-likelihood bounds on binarised MNIST test images, nats per image, Z = 50.
STOCHASTIC_MNIST = {
    "VAE (k = 1), stochastic binarisation, 5,000 samples (Burda et al. 2016)": 86.76,
    "IWAE k = 5, the same": 85.54,
    "IWAE k = 50, the same": 84.78,
}
FIXED_MNIST = {
    "VAE, fixed binarisation, 200 samples (pythae's reproduction)": 89.78,
    "the paper that it reproduces": 89.9,
}


def published_nll(data: Mapping[str, Any]) -> dict[str, float]:
    """Figures for the data of a run; none unless they are MNIST digits made black and white."""
    tables = {"stochastic": STOCHASTIC_MNIST, "fixed": FIXED_MNIST}
    if data["name"] != "mnist":
        return {}
    return dict(tables.get(data.get("binarize", "none"), {}))

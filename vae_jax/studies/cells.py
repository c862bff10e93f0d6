"""Cells of a sweep: models that differ in their seed alone, and the mean over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vae_jax.metrics.intervals import Interval, interval_of
from vae_jax.studies.sweep_results import MeasuredMember


@dataclass(frozen=True)
class Cell:
    """The finished members of one latent size, KL weight and learning rate.

    Attributes:
        z_dim: Latent size.
        kl_weight: As in the config.
        learning_rate: As in the config.
        members: One for each seed.
    """

    z_dim: int
    kl_weight: float
    learning_rate: float
    members: tuple[MeasuredMember, ...]

    def by_seed(self, name: str, split: str = "test") -> dict[int, float]:
        """Returns a figure by seed; empty unless every member has it."""
        values = {m.seed: getattr(m, split).get(name) for m in self.members}
        return {} if None in values.values() else values

    def interval(self, name: str, split: str = "test") -> Interval | None:
        """Returns the mean of a figure over seeds and its interval; None without the figure."""
        values = self.by_seed(name, split)
        return interval_of(list(values.values())) if values else None

    def mean(self, name: str) -> float:
        """Returns the mean over seeds of a figure on test that every member has."""
        return float(np.mean(list(self.by_seed(name).values())))


def make_cells(members: Sequence[MeasuredMember]) -> list[Cell]:
    """Returns the cells of all finished members, in order of z_dim, KL weight, learning rate."""
    groups: dict[tuple[int, float, float], list[MeasuredMember]] = {}
    for member in members:
        if member.finished:
            key = (member.z_dim, member.kl_weight, member.learning_rate)
            groups.setdefault(key, []).append(member)
    return [Cell(*key, tuple(own)) for key, own in sorted(groups.items())]

"""What the pages of latent space share: a model, the codes of its images, and a seed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from vae_jax.run import Seen, Subject, decode, encode_subject
from vae_jax.streams import make_key


class LatentStudy(NamedTuple):
    """A subject, what its encoder made of it, and the seed of everything."""

    subject: Subject
    seen: Seen
    key: jax.Array
    seed: int

    def decode(self, z: np.ndarray) -> np.ndarray:
        """`[N, Z]` to images in [0, 1], a conditional model under the first image's condition."""
        labels = self.subject.labels
        labels = None if labels is None else np.tile(labels[:1], (len(z), 1))
        return decode(self.subject.model, self.subject.variables, z.astype(np.float32), labels)


def latent_study(subject: Subject, seed: int) -> LatentStudy:
    """Encode the subject's images."""
    return LatentStudy(subject, encode_subject(subject), make_key(seed), seed)

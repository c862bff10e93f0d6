"""Searching precursors, strategies, and what seeds have in common."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.studies.excitation import Projection, excite
from vae_jax.studies.filters import (
    SCALE_STEPS,
    Settings,
    best_starts,
    candidate_starts,
    logarithmic_steps,
    seconds_per_map,
    spectral_agreement,
    starts_of_maps,
)
from vae_jax.types import UserError

SHAPE = (14, 14, 1)
FREE = Projection()


def brightness_layer(images):
    """Maps that respond to the left, the right, and to nothing."""
    left, right = jnp.mean(images[:, :, :7], axis=3), jnp.mean(images[:, :, 7:], axis=3)
    return jax.nn.relu(jnp.stack([left, right, jnp.zeros_like(left)], axis=-1))


def test_each_map_starts_from_the_candidate_it_responds_to_most():
    settings = Settings(scales=(3, 7), precursors=12)
    (candidates,) = np.asarray(candidate_starts(settings, SHAPE, seed=4))
    responses = [np.maximum(candidates[:, :, half], 0).mean(axis=(1, 2, 3))
                 for half in (slice(0, 7), slice(7, 14))]  # fmt: skip
    chosen = best_starts(brightness_layer, candidates, [1, 0, 2], FREE)
    assert chosen.tolist() == [responses[1].argmax(), responses[0].argmax(), 0]
    starts = starts_of_maps(brightness_layer, SHAPE, [1], FREE, settings, seed=4)
    np.testing.assert_array_equal(starts[0, 0], candidates[chosen[0]])


def test_the_precursor_search_helps_and_seeds_repeat():
    def responses(precursors, seed):
        settings = Settings(scales=(3,), precursors=precursors, steps=(3,))
        starts = starts_of_maps(brightness_layer, SHAPE, [0, 1], FREE, settings, seed)
        return excite(brightness_layer, starts, [0, 1], FREE, settings.steps).responses

    np.testing.assert_array_equal(responses(8, 1), responses(8, 1))
    assert (responses(30, 1) > responses(1, 1)).all()
    assert (responses(8, 1) != responses(8, 2)).all()


def test_strategy_1_enriches_with_finer_noise_stage_by_stage():
    settings = Settings(scales=(2, 4, 7, 0), strategy=1, steps=SCALE_STEPS, precursors=3)
    candidates = np.asarray(candidate_starts(settings, SHAPE, seed=0))
    assert candidates.shape == (4, 3, *SHAPE)
    rough = np.square(np.diff(candidates, axis=2)).mean(axis=(1, 2, 3, 4))
    assert (np.diff(rough) > 0).all()
    plain = np.asarray(candidate_starts(settings._replace(strategy=0, steps=(5,)), SHAPE, seed=0))
    total = candidates.sum(axis=0)
    np.testing.assert_allclose(plain[0], total / total.std(axis=(1, 2, 3), keepdims=True), atol=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"strategy": 1}, "4 stages, but 1 numbers"), ({"steps": (1, 2)}, "1 stages, but 2 numbers"),
     ({"strategy": 1, "steps": SCALE_STEPS, "start": "fourier"}, "start 'noise'")],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        candidate_starts(Settings(**fields), SHAPE, seed=0)


def test_logarithmic_steps():
    assert logarithmic_steps(20) == (0, 1, 2, 4, 8, 16, 20)
    assert logarithmic_steps(8) == (0, 1, 2, 4, 8)
    assert logarithmic_steps(1) == (0, 1)


def test_spectra_agree_for_shifted_patterns_only():
    rng = np.random.default_rng(0)
    motifs = rng.normal(size=(3, 16, 16, 1))
    shifted = [SimpleNamespace(patterns=np.roll(motifs, (k, 2 * k), (1, 2))) for k in range(4)]
    found = spectral_agreement(shifted)
    assert found["same_map"] == pytest.approx(1.0) and abs(found["other_maps"]) < 0.2
    assert spectral_agreement(shifted[:1]) is None


def test_times_cover_every_map():
    seen = []
    together, alone = seconds_per_map(lambda maps: seen.append(maps.tolist()), 3)
    assert seen == [[0, 1, 2], [0, 1, 2], [0], [0], [1], [2]]
    assert together >= 0 and alone >= 0

"""KL decomposition and MMD against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vae_jax.metrics import divergence as dv
from vae_jax.types import UserError

KEY = jax.random.key(2)


def codes(count, z_dim, spread, log_var, seed=0):
    rng = np.random.default_rng(seed)
    mean = spread * rng.normal(size=(count, z_dim))
    return mean.astype(np.float32), np.full((count, z_dim), log_var, np.float32)


@pytest.mark.parametrize("rows", [12, 30])
def test_aggregate_agrees_with_a_loop(rows):
    mean, log_var = codes(30, 3, 1.0, -0.7)
    mean, log_var = mean[:rows], log_var[:rows]
    z = mean + 0.3
    own, other = -np.log(30), np.log(29 / (30 * (rows - 1)))
    joint, marginals = jax.jit(dv._log_aggregate)(z, mean, log_var, own, other)
    for i in range(rows):
        weights = np.where(np.arange(rows) == i, own, other)
        each = stats.norm(mean, np.exp(log_var / 2)).logpdf(z[i][None, :])
        assert joint[i] == pytest.approx(special.logsumexp(weights + each.sum(axis=1)), rel=1e-4)
        by_dimension = [special.logsumexp(weights + each[:, d]) for d in range(3)]
        assert marginals[i] == pytest.approx(sum(by_dimension), rel=1e-4)


def test_terms_add_up_to_the_kl():
    mean, log_var = codes(1000, 2, 0.8, -1.0)
    result = dv.kl_decomposition(mean, log_var, KEY, batch=1000)
    kl = 0.5 * np.sum(mean**2 + np.exp(log_var) - 1 - log_var, axis=1).mean()
    assert sum(result.values()) == pytest.approx(kl, abs=0.12)  # Four standard errors.
    assert result == dv.kl_decomposition(mean, log_var, KEY, batch=1000)


def test_a_collapsed_posterior_has_no_terms():
    mean, log_var = codes(40, 3, 0.0, 0.0)
    for rows in (10, 40):
        result = dv.kl_decomposition(mean, log_var, KEY, batch=rows)
        np.testing.assert_allclose(list(result.values()), 0, atol=2e-5)


def test_total_correlation_of_correlated_means_has_a_closed_form():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(1000, 1))
    mean = np.concatenate([shared, shared], axis=1).astype(np.float32)
    log_var = np.full_like(mean, np.log(0.5))
    # q(z) is close to a Gaussian with variances 1.5 and covariance 1.
    expected = -0.5 * np.log(1 - (1 / 1.5) ** 2)
    found = dv.kl_decomposition(mean, log_var, KEY, batch=1000)
    assert found["total_correlation"] == pytest.approx(expected, abs=0.06)
    part = dv.kl_decomposition(mean, log_var, KEY, batch=400)
    assert part["total_correlation"] == pytest.approx(expected, abs=0.12)


def test_separate_posteriors_carry_log_n_nats():
    mean, log_var = codes(40, 3, 1000.0, 0.0)
    result = dv.kl_decomposition(mean, log_var, KEY)
    assert result["mutual_information"] == pytest.approx(np.log(40), abs=0.02)


def test_minibatch_weighting_differs_by_its_known_constant():
    mean, log_var = codes(40, 3, 0.5, -0.5)
    exact = dv.kl_decomposition(mean, log_var, KEY, batch=40)
    weighted = dv.kl_decomposition(mean, log_var, KEY, batch=40, weighting="weighted")
    gap = weighted["total_correlation"] - exact["total_correlation"]
    assert gap == pytest.approx(2 * np.log(40), rel=1e-4)
    gap = weighted["mutual_information"] - exact["mutual_information"]
    assert gap == pytest.approx(np.log(40), rel=1e-4)


@pytest.mark.parametrize("chunk", [5, 1024])
def test_mmd_agrees_with_a_loop(chunk, monkeypatch):
    monkeypatch.setattr(dv, "CHUNK", chunk)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(9, 3))

    def kernel(a, b):
        return sum(6 * s / (6 * s + np.sum((a - b) ** 2)) for s in dv.IMQ_SCALES)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert dv.mmd_imq(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)
    assert dv.mmd_imq(y, x) == pytest.approx(dv.mmd_imq(x, y), rel=1e-10)


def test_mmd_is_unbiased_and_grows_with_the_offset():
    rng = np.random.default_rng(4)
    same = [dv.mmd_imq(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))) for _ in range(100)]
    error = np.std(same) / 10
    assert abs(np.mean(same)) < 4 * error and min(same) < 0
    offsets = [dv.mmd_imq(rng.normal(o, 1, (200, 4)), rng.normal(size=(200, 4))) for o in (0.5, 2)]
    assert offsets[1] > offsets[0] > 10 * error
    far = dv.mmd_imq(np.zeros((5, 4)), np.full((5, 4), 1e8))
    assert far == pytest.approx(14)


def test_bad_input_is_refused():
    mean, log_var = codes(4, 2, 1.0, 0.0)
    with pytest.raises(UserError, match="weighting"):
        dv.kl_decomposition(mean, log_var, KEY, weighting="exact")
    with pytest.raises(UserError, match="two images"):
        dv.kl_decomposition(mean[:1], log_var[:1], KEY)
    with pytest.raises(ValueError, match=r"\[N, Z\]"):
        dv.mmd_imq(mean, mean[:, :1])
    with pytest.raises(UserError, match="two points"):
        dv.mmd_imq(mean, jnp.zeros((1, 2)))

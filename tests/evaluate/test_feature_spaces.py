"""Spaces of features, and the Inception hook."""

import numpy as np
import pytest

from vae_jax.evaluate.feature_spaces import inception_activations, small_pixels
from vae_jax.evaluate.run_metrics import fid_of_file, finite_or_none, reconstruction_metrics
from vae_jax.types import UserError


def test_small_pixels_are_averages():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    small = small_pixels(None, images, None).reshape(3, 8, 8, 3)
    assert small.min() >= 0 and small.max() <= 1
    np.testing.assert_allclose(small.mean((1, 2)), images.mean((1, 2)) / 255, atol=0.02)
    flat = np.full((2, 16, 16, 1), 51, np.uint8)
    np.testing.assert_allclose(small_pixels(None, flat, None), 0.2, rtol=1e-5)


def test_equal_images_and_a_known_error():
    x = np.full((70, 16, 16, 1), 0.5, np.float32)
    y = x.copy()
    y[:35] += 0.1
    metrics = reconstruction_metrics(x, y)
    assert metrics["mse"] == pytest.approx(0.005)
    assert set(metrics) == {"mse", "psnr", "ssim"}
    assert finite_or_none({"a": [float("inf"), 1.0], "b": float("nan")}) == {
        "a": [None, 1.0], "b": None,
    }  # fmt: skip


def test_fid_only_of_inception_activations(tmp_path):
    rng = np.random.default_rng(0)
    real = np.zeros((4, 2048), np.float32)
    real[:, :3] = rng.normal(size=(4, 3))
    np.savez(tmp_path / "a.npz", real=real, fake=real + np.eye(1, 2048, dtype=np.float32))
    assert fid_of_file(tmp_path / "a.npz")["fid"] == pytest.approx(1.0, abs=1e-6)
    np.savez(tmp_path / "b.npz", real=real[:, :64], fake=real[:, :64])
    with pytest.raises(UserError, match="2048 pool3 features"):
        inception_activations(tmp_path / "b.npz")
    with pytest.raises(UserError, match="arrays real and fake"):
        inception_activations(tmp_path / "absent.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    with pytest.raises(UserError, match="cut.npz must be a .npz with the arrays real and fake"):
        inception_activations(tmp_path / "cut.npz")

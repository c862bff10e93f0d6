"""Sliced Wasserstein distance: pyramid against scipy, distance against a naive version."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wasserstein_distance

from vae_jax.metrics import sliced_wasserstein as sw
from vae_jax.types import UserError

KEY = jax.random.key(3)
level_of = jax.jit(sw.laplacian_level, static_argnums=(1, 2))
FAST = {"patches": 32, "directions": 24, "batch": 16}


def images(count, size=28, channels=1, seed=0, blur=0.0):
    noise = np.random.default_rng(seed).uniform(size=(count, size, size, channels))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1, 0))
    return ndimage.gaussian_filter(smooth, (0, blur, blur, 0)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(96, [96, 48, 24]), (128, [128, 64, 32, 16]), (28, [28, 14]), (32, [32, 16]), (20, [20])],
)
def test_pyramid_sizes(size, expected):
    assert sw.pyramid_shapes(size, size) == [(side, side) for side in expected]
    assert sw.pyramid_shapes(size, 2 * size)[-1] == (expected[-1], 2 * expected[-1])


@pytest.mark.parametrize("size", [28, 27])
def test_pyramid_agrees_with_scipy_and_restores_the_image(size):
    image = images(1, size)[0, :, :, 0].astype(np.float64)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    small = ndimage.convolve(image, kernel, mode="mirror")[::2, ::2]
    spread = np.zeros_like(image)
    spread[::2, ::2] = small
    large = ndimage.convolve(spread, 4 * kernel, mode="mirror")
    batch = jnp.asarray(image, jnp.float32)[None, :, :, None]
    detail = level_of(batch, 0, False)[0, :, :, 0]
    rest = level_of(batch, 1, True)[0, :, :, 0]
    np.testing.assert_allclose(detail, image - large, atol=1e-6)
    np.testing.assert_allclose(rest, small, atol=1e-6)


def test_a_flat_image_has_no_detail():
    flat = jnp.full((1, 28, 28, 1), 0.5)
    np.testing.assert_allclose(level_of(flat, 0, False), 0, atol=1e-6)


def test_distance_agrees_with_a_naive_version():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 9)), rng.normal(0.3, 1.5, size=(60, 9))
    directions = rng.normal(size=(9, 21))
    expected = np.mean(
        [wasserstein_distance(real @ d, fake @ d) for d in directions.T.astype(np.float64)]
    )
    found = sw._distances(real, [fake, real], directions)
    assert found == [pytest.approx(expected, rel=1e-12), 0]


def test_patches_are_windows_of_the_level_normalised_per_channel():
    batch = images(5, 14, 3) * np.array([1, 2, 3], np.float32)
    pixels = sw._gather(batch, KEY, 0, True, 6, 2)
    points = sw._descriptors_in_units(pixels, pixels)
    assert points.shape == (30, 147)
    by_channel = points.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(by_channel.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(by_channel.std(axis=0), 1, atol=1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(batch[4], (7, 7), axis=(0, 1))
    windows = windows.transpose(0, 1, 3, 4, 2).reshape(-1, 147)
    centred = windows - windows.mean(axis=1, keepdims=True)
    patch = points[-1].reshape(49, 3)
    # The same window up to one scale and offset a channel: correlation 1 in each channel.
    best = max(
        min(np.corrcoef(w.reshape(49, 3)[:, c], patch[:, c])[0, 1] for c in range(3))
        for w in centred
    )
    assert best == pytest.approx(1, abs=1e-5)


def test_a_set_is_at_distance_zero_from_itself_and_batches_do_not_matter():
    real, fake = images(40), images(40, seed=1, blur=1.0)
    assert sw.sliced_wasserstein(real, real, KEY, **FAST)["mean"] == 0
    first = sw.sliced_wasserstein(real, fake, KEY, **FAST)
    assert first == sw.sliced_wasserstein(real, fake, KEY, **FAST)
    other = sw.sliced_wasserstein(real, fake, KEY, **(FAST | {"batch": 7}))
    assert other["levels"] == pytest.approx(first["levels"], rel=1e-4)
    assert list(first["levels"]) == ["28x28", "14x14"]
    assert first["mean"] == pytest.approx(np.mean(list(first["levels"].values())))
    swapped = sw.sliced_wasserstein(fake, real, KEY, **FAST)
    assert swapped["mean"] == pytest.approx(first["mean"], rel=1e-6)


def test_grey_levels_in_bytes_give_the_same_distance():
    real, fake = (np.round(255 * images(24, seed=s)).astype(np.uint8) for s in (0, 1))
    as_bytes = sw.sliced_wasserstein(real, fake, KEY, **FAST)
    scaled = (np.asarray(part, np.float32) / 255 for part in (real, fake))
    assert as_bytes["mean"] == pytest.approx(sw.sliced_wasserstein(*scaled, KEY, **FAST)["mean"])


def test_blur_raises_the_distance_above_the_floor_most_on_the_finest_level():
    real = images(300)
    floor = sw.sliced_wasserstein_floor(real, KEY, **FAST)
    same = sw.sliced_wasserstein(real[:150], images(150, seed=5), KEY, **FAST)
    blurred = sw.sliced_wasserstein(real[:150], images(150, seed=5, blur=2.0), KEY, **FAST)
    assert floor["mean"] > 0 and same["mean"] == pytest.approx(floor["mean"], rel=0.5)
    assert blurred["mean"] > 3 * floor["mean"]
    gains = [blurred["levels"][k] / floor["levels"][k] for k in ("28x28", "14x14")]
    assert gains[0] > gains[1]


def test_unequal_counts_use_an_equal_subset():
    real, fake = images(20), images(33, seed=1)
    chosen = sw._subsample(fake, 20, KEY)
    assert chosen.shape == real.shape
    positions = [int(np.flatnonzero((fake == one).all(axis=(1, 2, 3)))[0]) for one in chosen]
    assert positions == sorted(set(positions))
    assert np.isfinite(sw.sliced_wasserstein(real, fake, KEY, **FAST)["mean"])


def test_floor_halves_are_disjoint(monkeypatch):
    seen = {}
    monkeypatch.setattr(sw, "sliced_wasserstein", lambda a, b, key: seen.update(a=a, b=b))
    sw.sliced_wasserstein_floor(np.arange(11), KEY)
    assert len(seen["a"]) == len(seen["b"]) == 5
    assert not set(seen["a"]) & set(seen["b"])


def test_flat_images_do_not_turn_rounding_into_contrast():
    flat = np.full((17, 28, 28, 1), 0.3, np.float32)
    assert sw.sliced_wasserstein(flat, flat + np.float32(0.1), KEY, **FAST)["mean"] < 0.05


def test_lost_contrast_counts_only_where_it_is_kept():
    real = images(60, channels=3)
    pale = 0.5 + 0.5 * (images(60, channels=3, seed=1) - 0.5)  # half the contrast
    same = sw.sliced_wasserstein(real, images(60, channels=3, seed=1), KEY, **FAST)
    found = sw.sliced_wasserstein(real, pale, KEY, **FAST)
    assert found["mean"] == pytest.approx(same["mean"], rel=0.01)
    assert found["contrast_mean"] > 4 * same["contrast_mean"]
    # Projections of real patches with deviation s, and of the same with s / 2: E|n| s / 2 apart.
    level = found["contrast_levels"]["28x28"]
    pixels = sw._gather(real, sw.jax.random.split(KEY, 4)[0], 0, False, 32, 16)
    patches = sw._descriptors_in_units(pixels, pixels)
    spread = np.sqrt(np.mean(patches.astype(np.float64) ** 2))
    assert level == pytest.approx(0.5 * np.sqrt(2 / np.pi) * spread, rel=0.1)
    brighter = sw.sliced_wasserstein(real, real + np.float32(0.1), KEY, **FAST)
    assert brighter["mean"] < 1e-3 < 0.1 < brighter["contrast_levels"]["14x14"]


def test_bad_sets_are_refused():
    with pytest.raises(UserError, match="share H, W and C"):
        sw.sliced_wasserstein(images(2), images(2, 20), KEY)
    with pytest.raises(UserError, match="at least one image"):
        sw.sliced_wasserstein(images(2), images(2)[:0], KEY)
    with pytest.raises(UserError, match="7 pixels"):
        sw.pyramid_shapes(6, 30)
    with pytest.raises(UserError, match="at least two images"):
        sw.sliced_wasserstein_floor(images(1), KEY)

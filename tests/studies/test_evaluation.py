"""The evaluation's own arithmetic, the Inception hook, and what its page says."""

import os

import jax
import numpy as np
import pytest

from vae_jax.data.inputs import CLEAN
from vae_jax.losses import Objective
from vae_jax.studies import evaluation
from vae_jax.studies.evaluation import fid_of_file, reconstruction_quality
from vae_jax.subject import Subject
from vae_jax.types import ImageSet, UserError


def test_equal_images_and_a_known_error():
    x = np.full((70, 16, 16, 1), 0.5, np.float32)
    y = x.copy()
    y[:35] += 0.1
    found = reconstruction_quality(x, y)
    assert found["mse"] == pytest.approx(0.005)
    assert found["mse_standard_error"] == pytest.approx(0.005 / 69**0.5)
    assert {"mse", "psnr", "ssim"} < set(found)


def test_fid_only_of_inception_activations(tmp_path):
    rng = np.random.default_rng(0)
    real = np.zeros((4, 2048), np.float32)
    real[:, :3] = rng.normal(size=(4, 3))
    np.savez(tmp_path / "a.npz", real=real, fake=real + np.eye(1, 2048, dtype=np.float32))
    assert fid_of_file(tmp_path / "a.npz")["fid"] == pytest.approx(1.0, abs=1e-6)
    np.savez(tmp_path / "b.npz", real=real[:, :64], fake=real[:, :64])
    with pytest.raises(UserError, match="2048 pool3 features"):
        fid_of_file(tmp_path / "b.npz")
    with pytest.raises(UserError, match="arrays real and fake"):
        fid_of_file(tmp_path / "absent.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="arrays real and fake"):
        fid_of_file(tmp_path / "pipe.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    with pytest.raises(UserError, match="cut.npz must be a .npz with the arrays real and fake"):
        fid_of_file(tmp_path / "cut.npz")


@pytest.mark.parametrize("likelihood", ["squared_error", "optimal_sigma"])
def test_no_likelihood_no_bound(likelihood):
    images = np.zeros((2, 2, 2, 1), np.uint8)
    split = ImageSet(images, np.arange(2))
    objective = Objective(likelihood)
    model = None  # refused before anything is computed
    subject = Subject(model, {}, objective, CLEAN, jax.random.key(0), images, None, split)
    with pytest.raises(UserError, match="no bound"):
        evaluation.image_bounds(subject, 5)
    with pytest.raises(UserError, match="at least 1 sample"):
        evaluation.image_bounds(subject._replace(objective=Objective()), 0)


FIGURES = {"precision": 0.5, "recall": 0.25, "density": 0.75, "coverage": 0.6,
           "frechet_distance": 12.5}  # fmt: skip
NUMBERS = {
    "images": 100, "psnr": 21.0, "mse": 0.01, "kl": 25.0, "active_units": 10, "z_dim": 64,
    "elbo": -101.126, "elbo_standard_error": 1.5, "iw_bound": -97.0, "iw_samples": 50,
    "iw_effective_samples": 1.4, "recon_nats": 76.0, "entropy_floor": 2.0, "generated": 50,
    "sliced_wasserstein": 0.12, "sliced_wasserstein_floor": 0.04,
    "sliced_wasserstein_levels": {"28x28": 0.12},
    "sliced_wasserstein_floor_levels": {"28x28": 0.04},
    "sliced_wasserstein_contrast": 0.24, "sliced_wasserstein_contrast_floor": 0.08,
    "sliced_wasserstein_contrast_levels": {"28x28": 0.24},
    "sliced_wasserstein_contrast_floor_levels": {"28x28": 0.08},
    "spaces": {"pixels_8x8": FIGURES | {"floor": FIGURES | {"precision": 0.9}}},
    "published_nll": {"IWAE <2016>": 84.78},
}  # fmt: skip


def rows_of(page):
    return {row[0]: row[1:] for section in page.sections for t in section.tables for row in t.rows}


def test_the_page_gives_numbers_with_error_and_floor():
    images = np.zeros((3, 28, 28, 1), np.float32)
    facts = {"split": "test", "images": "100", "seed": "3", "prior": "normal"}
    page = evaluation.page(
        evaluation.Result(facts, NUMBERS, np.array([4, 1, 2]), (images, images), images)
    )
    rows = rows_of(page)
    assert rows["ELBO, nats per image"] == ["-101.13 ± 1.50"]
    assert rows["IWAE <2016>"] == ["84.78"] and rows["this model, k = 50"] == ["97.00"]
    assert rows["precision: samples inside the manifold of real images"] == ["0.500", "0.900"]
    assert rows["with brightness and contrast, 28x28"] == ["0.2400", "0.0800"]
    text = page.sections[0].text
    assert "grey levels" in text and "1.4 carry the weight" in text  # the bound sits at its limit
    assert "3.0 times as far" in page.lead
    assert "Images 4, 1, 2" in page.sections[2].pictures[0].caption
    plain = NUMBERS | {"entropy_floor": 0.0, "iw_effective_samples": 30.0, "published_nll": {}}
    page = evaluation.page(
        evaluation.Result(facts, plain, np.array([0]), (images[:1], images[:1]), images)
    )
    assert page.sections[0].text == "" and page.sections[1].heading == "Reconstructions"

"""Samples depend on (checkpoint, seed, i) alone; images are judged as validation shows them."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from vae_jax.data.splits import piece_of
from vae_jax.models.vae import make_vae
from vae_jax.run import (
    BATCH,
    Run,
    chosen_images,
    decode,
    encode,
    encode_subject,
    make_subject,
    prior_latents,
    read_latents,
)
from vae_jax.train.state import init_variables
from vae_jax.types import ImageSet, UserError

REFERENCE_33 = [1460, 4686, 6268, 2663, 4776]


@pytest.fixture(scope="module")
def model_and_variables():
    config = tiny.get_config()
    model = make_vae(config.model, config.data.image_shape)
    return model, init_variables(model, jax.random.key(0))


def test_latents_do_not_depend_on_the_count():
    many = prior_latents(33, 500, 8)
    np.testing.assert_array_equal(prior_latents(33, 3, 8), many[:3])
    assert not np.array_equal(prior_latents(34, 3, 8), many[:3])
    assert abs(many.mean()) < 0.05 and abs(many.std() - 1) < 0.05


def test_the_first_components_of_latents_do_not_depend_on_z_dim():
    """So that one seed shows comparable images for every latent size of a told model."""
    np.testing.assert_array_equal(prior_latents(33, 5, 3), prior_latents(33, 5, 128)[:, :3])


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1])
def test_images_do_not_depend_on_the_count(model_and_variables, count):
    model, variables = model_and_variables
    z = prior_latents(1, BATCH + 9, model.z_dim)
    whole = decode(model, variables, z)
    assert whole.shape == (BATCH + 9, 16, 16, 3) and whole.dtype == np.float32
    np.testing.assert_array_equal(decode(model, variables, z[:count]), whole[:count])


def test_encode_agrees_with_the_model_and_takes_uint8(model_and_variables):
    model, variables = model_and_variables
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    mean, log_var = encode(model, variables, pixels)
    output = model.apply(variables, pixels.astype(np.float32) / 255, train=False, sample=False)
    np.testing.assert_allclose(mean, output.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_var, output.log_var, rtol=1e-4, atol=1e-5)


def test_latents_from_a_file_are_checked(tmp_path):
    path = tmp_path / "z.npy"
    points = np.arange(6.0).reshape(3, 2)
    np.save(path, points)
    found = read_latents(path, 2)
    assert found.dtype == np.float32 and type(found) is np.ndarray
    np.testing.assert_array_equal(found, points)
    for bad, message in (
        (points.astype(int), "holds int64"),
        (points[:, :1], r"shape \(3, 1\).*\[N, 2\]"),
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[{}, 1]], object), "not a readable .npy"),
    ):
        np.save(path, bad)
        with pytest.raises(UserError, match=message):
            read_latents(path, 2)
    os.mkfifo(tmp_path / "pipe")
    for absent in ("pipe", "absent.npy"):
        with pytest.raises(UserError, match=f"{absent} is not a file"):
            read_latents(tmp_path / absent, 2)
    path.write_bytes(b"PK\3\4" + bytes(100))  # a zip by its first bytes
    with pytest.raises(UserError, match="z.npy is not a readable .npy"):
        read_latents(path, 2)


def test_latents_of_the_explorer_are_read_exactly(tmp_path):
    path = tmp_path / "latents.json"
    points = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    path.write_text(json.dumps({"z_dim": 2, "latents": points.tolist()}))
    np.testing.assert_array_equal(read_latents(path, 2), points)
    for bad, message in (
        ("{", "holds no latent points"),
        ("[" * 100_000, "RecursionError"),
        ("[1, 2]", "holds no latent points"),
        ('{"points": [[1, 2]]}', "latents"),
        ('{"latents": [[1, 2], [3]]}', "inhomogen"),
        ('{"latents": [[1, "b"]]}', "could not convert"),
        ('{"latents": [[1, 2, 3]]}', r"shape \(1, 3\)"),
        ('{"latents": [[1, NaN]]}', "not finite"),
        (f'{{"latents": [[1, 1{"0" * 400}]]}}', "holds no latent points"),
    ):
        path.write_text(bad)
        with pytest.raises(UserError, match=message):
            read_latents(path, 2)


def mutated_latents(tmp_path, count):
    rng, path = np.random.default_rng(7), tmp_path / "m.npy"
    refused = 0
    for number in range(count):
        dtype = (np.float32, np.float64, np.float16)[number % 3]
        np.save(path, rng.normal(size=(4, 3)).astype(dtype))
        data = bytearray(path.read_bytes())
        for _ in range(rng.integers(1, 4)):
            place = int(len(data) * rng.random() ** 2)  # mostly in the header
            data[place] = rng.choice(list(b"0123456789L(),'{}<>|OVSU \n\0\xff"))
        if number % 5 == 0:  # a shape that would not fit into any memory
            data = data.replace(b"(4, 3)", b"(4%s, 3)" % (b"0" * int(rng.integers(1, 30))))
        path.write_bytes(data if rng.random() < 0.8 else data[: rng.integers(len(data))])
        try:
            assert read_latents(path, 3).shape[1] == 3
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > count // 4


def test_mutated_latents_raise_only_user_errors(tmp_path, little_memory):
    mutated_latents(tmp_path, 40)


@pytest.mark.slow
def test_mutated_latents_raise_only_user_errors_in_full(tmp_path, little_memory):
    mutated_latents(tmp_path, 1000)


@pytest.fixture(scope="module")
def grey_run():
    """An untrained tiny model of grey images that are binarised anew in every step."""
    config = tiny.get_config()
    config.data.image_shape, config.data.binarize = (16, 16, 1), "stochastic"
    model = make_vae(config.model, config.data.image_shape)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), False, False)
    return Run(Path(), config, 0, model, variables, ())


def test_the_reference_choice_is_reproduced():
    wanted = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(33))).randint(0, 99, 8)
    np.testing.assert_array_equal(chosen_images(8, 99, 33, reference=True), wanted)
    # Recorded once: neither NumPy's nor our choice may drift.
    assert chosen_images(5, 10_000, 33, reference=True).tolist() == REFERENCE_33


def test_our_choice_has_no_repetitions_and_extends():
    many = chosen_images(50, 50, 1)
    assert sorted(many) == list(range(50))
    np.testing.assert_array_equal(chosen_images(7, 50, 1), many[:7])
    assert len(chosen_images(9, 4, 0)) == 4


def test_a_piece_of_a_split_is_shown_as_it_is_within_the_whole(grey_run):
    images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 1)).astype(np.uint8)
    split = ImageSet(images, np.arange(70), np.arange(70))
    whole = encode_subject(make_subject(grey_run, split))
    assert set(np.unique(whole.inputs)) == {0.0, 1.0}
    assert np.array_equal(whole.inputs, whole.targets)
    # The law of each pixel: deviations from its grey level are a fair draw's.
    assert abs(float(whole.targets.mean()) - images.mean() / 255) < 0.01
    part = piece_of(split, 64, 9)
    assert part.labels.tolist() == list(range(64, 70))
    seen = encode_subject(make_subject(grey_run, part), first=64)
    np.testing.assert_array_equal(seen.inputs, whole.inputs[64:])
    np.testing.assert_array_equal(seen.mean, whole.mean[64:])

"""Files of latent points: read exactly, and refused in one sentence where they are not such."""

import json
import os

import numpy as np
import pytest

from vae_jax.data.latents import read_latents
from vae_jax.types import UserError


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

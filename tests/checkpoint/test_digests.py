"""Leaf names and digests, host copies, and sealed records."""

import hashlib
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.checkpoint import digests
from vae_jax.types import UserError


def test_digest_covers_bytes_dtype_and_shape():
    array = np.arange(6, dtype=np.float32)
    expected = hashlib.sha256(b"float32[6]" + array.tobytes()).hexdigest()
    assert digests.digest(array) == expected
    variants = [array, array.reshape(2, 3), array.view(np.int32), -array]  # -0.0 differs from 0.0
    assert len({digests.digest(variant) for variant in variants}) == 4
    assert digests.digest(np.float32(0) * array) != digests.digest(-(np.float32(0) * array))


def test_host_copies_do_not_follow_later_changes():
    mutable = np.zeros(3)
    copies = digests.host_copies({"a": {"b": mutable}})
    mutable[:] = 1
    assert list(copies) == ["a/b"]
    np.testing.assert_array_equal(copies["a/b"], np.zeros(3))


def test_leaves_that_cannot_be_stored_are_named():
    with pytest.raises(UserError, match="'a/b' is str"):
        digests.host_copies({"a": {"b": "text"}})
    with pytest.raises(UserError, match="same path 'a/b'"):
        digests.host_copies({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_non_finite_leaves_are_found(dtype):
    leaves = {"good": np.ones(3, jnp.dtype(dtype)), "count": np.array(3)}
    assert digests.first_non_finite(leaves) is None
    for bad in (math.nan, math.inf, -math.inf):
        spoiled = {**leaves, "bad": np.array([1, bad], jnp.dtype(dtype))}
        assert digests.first_non_finite(spoiled) == "bad"


def test_sealed_record_notices_every_changed_character():
    record = {
        "step": 7,
        "validation_loss": 1.25,
        "metadata": {"name": "é", "tuple": (1, 2), 3: None},
    }
    sealed = digests.seal(record)
    text = json.dumps(sealed)
    assert digests.unseal(text) == sealed["record"]
    assert sealed["record"]["metadata"] == {"name": "é", "tuple": [1, 2], "3": None}
    for place in range(len(text)):
        changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        try:
            assert digests.unseal(changed) == sealed["record"]  # e.g. a blank became a newline
        except ValueError:
            continue


def test_metadata_must_be_json():
    with pytest.raises(UserError, match="must be JSON"):
        digests.seal({"metadata": {"array": np.zeros(2)}})

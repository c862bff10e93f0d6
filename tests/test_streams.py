"""No two draws of a run share a key, and none depends on a setting of JAX."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from all_draws import digests

from vae_jax.run import prior_latents
from vae_jax.streams import MAX_SEED, STREAMS, make_key, step_key, stream_key
from vae_jax.types import UserError


def test_no_stream_of_the_run_or_of_a_step_shares_a_key():
    run_key = make_key(0)
    keys = [stream_key(run_key, name) for name in STREAMS]
    for step in range(len(STREAMS) + 2):
        keys.append(step_key(run_key, step))
        keys += [stream_key(step_key(run_key, step), name) for name in STREAMS]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


@pytest.fixture(scope="module")
def usual():
    return digests()


@pytest.mark.parametrize(
    "setting",
    ["JAX_THREEFRY_PARTITIONABLE=0", "JAX_DEFAULT_PRNG_IMPL=rbg", "JAX_ENABLE_X64=1"],
)
def test_no_draw_depends_on_a_setting_of_jax(usual, setting):
    name, value = setting.split("=")
    root = Path(__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "tests/all_draws.py"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), name: value},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == usual


def test_points_are_those_of_threefry():
    # Recorded once: a seed gives the points that it always gave.
    np.testing.assert_allclose(
        prior_latents(0, 1, 3), [[1.004014253616333, -0.9063372015953064, -0.7481722235679626]]
    )


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**63])
def test_a_seed_is_taken_whole_or_refused(seed):
    with pytest.raises(UserError, match=f"seed {seed} is not a whole number from 0 to 4294967295"):
        make_key(seed)

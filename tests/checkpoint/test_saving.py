"""Checkpoints: bit-for-bit round trips, messages about what does not fit, order and retention."""

import json
import math
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.types import UserError


class Training(NamedTuple):
    opt_state: optax.OptState
    step: jax.Array


def state(step=1):
    random = np.random.default_rng(step)
    encoder = {"params": {"conv": {"kernel": random.normal(size=(3, 3, 1, 4)).astype(np.float32)}}}
    decoder = {"params": {"dense": {"kernel": random.normal(size=(4, 8)).astype(np.float32)}}}
    encoder, decoder = jax.tree.map(jnp.asarray, (encoder, decoder))
    opt_state = optax.adam(1e-3).init((encoder, decoder))
    training = Training(opt_state, jnp.int32(step))
    return {"encoder": encoder, "decoder": decoder, "training": training}


def template(items):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), items)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def save(checkpoints, *steps, validation_loss=1.0):
    for step in steps:
        checkpoints.save(
            step, state(step), validation_loss=validation_loss, metadata={"step": step}
        )
    checkpoints.wait()


@pytest.fixture
def checkpoints(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as opened:
        yield opened


def test_training_state_comes_back_bit_for_bit(checkpoints):
    save(checkpoints, 5, validation_loss=2.5)
    found = checkpoints.restore(template(state()))
    assert_same(found.items, state(5))
    assert (found.step, found.metadata) == (5, {"step": 5})
    assert checkpoints.validation_losses() == {5: 2.5}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found.items))


DTYPES = (
    "bool int4 int8 uint8 int16 int32 int64 uint64 "
    "float8_e4m3fn bfloat16 float16 float32 float64 complex64"
)


def test_every_dtype_shape_and_bit_pattern_comes_back(checkpoints):
    leaves = {name: np.array([0, 1, 1, 0]).astype(jnp.dtype(name)) for name in DTYPES.split()}
    bits = np.array([0x7FC00001, 0xFFC00000, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
    leaves |= {
        "nan payloads": bits.view(np.float32),
        "scalar": np.array(3, np.int32),
        "empty": np.zeros((0, 3), np.float16),
        "fortran": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">f4"),
        "nested": (np.ones(2, np.int8), [np.zeros((1, 1), np.uint16)], None, {}),
    }
    checkpoints.save(0, {"training": leaves, "nothing": {}}, validation_loss=0, metadata={})
    found = checkpoints.restore({"training": leaves, "nothing": {}})
    leaves["big endian"] = leaves["big endian"].astype(np.float32)  # comes back native
    assert_same(found.items["training"], leaves)  # a numpy template stays on the host
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.items["training"]))
    assert found.items["nothing"] == {}
    wide = checkpoints.restore({"training": template(leaves)}).items["training"]
    assert_same(wide, leaves)  # 64-bit leaves are not rounded for the device
    assert isinstance(wide["int64"], np.ndarray) and isinstance(wide["float32"], jax.Array)


def test_arrays_are_copied_before_save_returns(checkpoints):
    leaf = np.ones(1000, np.float32)
    checkpoints.save(0, {"decoder": {"w": leaf}}, validation_loss=0, metadata={})
    leaf[:] = 2
    restored = checkpoints.restore({"decoder": {"w": leaf}}).items["decoder"]["w"]
    np.testing.assert_array_equal(restored, np.ones(1000, np.float32))


def test_decoder_is_read_without_the_other_items(checkpoints):
    save(checkpoints, 3)
    for item in ("encoder", "training"):
        shutil.rmtree(checkpoints.directory / "3" / item)
    found = checkpoints.restore({"decoder": template(state()["decoder"])})
    assert_same(found.items["decoder"], state(3)["decoder"])
    with pytest.raises(UserError, match=r"step 3: item 'encoder' cannot be read"):
        checkpoints.restore(template(state()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda leaves: {"dense": {"kernel": jax.ShapeDtypeStruct((4, 9), jnp.float32)}},
            "leaf 'params/dense/kernel': expected float32[4, 9], found float32[4, 8]",
        ),
        (
            lambda leaves: {"dense": {"kernel": jax.ShapeDtypeStruct((4, 8), jnp.bfloat16)}},
            "leaf 'params/dense/kernel': expected bfloat16[4, 8], found float32[4, 8]",
        ),
        (
            lambda leaves: {**leaves, "bias": jax.ShapeDtypeStruct((8,), jnp.float32)},
            "leaf 'params/bias': expected float32[8], found nothing",
        ),
        (
            lambda leaves: {"dense": {}},
            "leaf 'params/dense/kernel': expected nothing, found float32[4, 8]",
        ),
    ],
)
@pytest.mark.parametrize("step", [None, 2])
def test_template_that_does_not_fit_is_refused_at_once(checkpoints, caplog, change, sentence, step):
    save(checkpoints, 1, 2)
    wanted = template(state()["decoder"])
    with pytest.raises(UserError) as caught:
        checkpoints.restore({"decoder": {"params": change(wanted["params"])}}, step)
    assert "Checkpoint step 2 " in str(caught.value)
    assert f"item 'decoder', {sentence}" in str(caught.value)
    assert not caplog.records  # not taken for damage
    assert checkpoints.latest_step() == 2


def test_an_unknown_item_is_named(checkpoints):
    save(checkpoints, 1)
    with pytest.raises(UserError, match="expected item 'ema', found encoder, decoder, training"):
        checkpoints.restore({"ema": {}})


def test_missing_steps_and_folders_are_named(checkpoints, tmp_path):
    assert checkpoints.steps() == [] and checkpoints.latest_step() is None
    with pytest.raises(UserError, match="no good checkpoint in .*checkpoints"):
        checkpoints.restore({})
    assert not checkpoints.directory.exists()  # readers create nothing
    save(checkpoints, 4)
    with pytest.raises(UserError, match=r"step 3 .*other steps there: 4"):
        checkpoints.restore({}, step=3)
    with pytest.raises(UserError, match=r"step 3 .*other steps there: 4"):
        checkpoints.read_metadata(3)
    assert checkpoints.read_metadata(4) == {"step": 4}


def test_non_finite_weights_are_never_saved(checkpoints):
    save(checkpoints, 1)
    for item, leaf in (("encoder", "params/conv/kernel"), ("decoder", "params/dense/kernel")):
        for bad in (math.nan, math.inf):
            spoiled = state(2)
            spoiled[item] = jax.tree.map(lambda w, bad=bad: w.at[0, 0].set(bad), spoiled[item])
            with pytest.raises(UserError, match=f"leaf '{leaf}' of the {item} is not finite"):
                checkpoints.save(2, spoiled, validation_loss=0.1, metadata={})
    assert checkpoints.steps() == [1]


def test_steps_stay_in_order_and_equal_steps_are_left_alone(checkpoints):
    save(checkpoints, 3, validation_loss=math.nan)
    before = {path: path.stat().st_ino for path in checkpoints.directory.rglob("d/*")}
    checkpoints.save(3, state(3), validation_loss=2.0, metadata={"evaluated": True})
    checkpoints.wait()
    assert before == {path: path.stat().st_ino for path in checkpoints.directory.rglob("d/*")}
    assert checkpoints.validation_losses() == {3: 2.0}
    assert checkpoints.read_metadata(3) == {"evaluated": True}
    checkpoints.save(3, state(4), validation_loss=2.0, metadata={})
    with pytest.raises(UserError, match="Step 3 exists in .* with other contents"):
        checkpoints.wait()
    with pytest.raises(UserError, match="Step 2 cannot be saved .* newest step there is 3"):
        checkpoints.save(2, state(2), validation_loss=1.0, metadata={})
    assert_same(checkpoints.restore(template(state())).items, state(3))


def test_error_of_a_background_save_comes_out_at_close_but_hides_no_other(tmp_path, caplog):
    def clash(directory):
        checkpoints = Checkpoints(directory)
        save(checkpoints, 3)
        checkpoints.save(3, state(4), validation_loss=1.0, metadata={})
        return checkpoints

    with pytest.raises(UserError, match="other contents"), clash(tmp_path / "a"):
        pass
    with pytest.raises(KeyError), clash(tmp_path / "b"):
        raise KeyError("first")
    assert "other contents" in caplog.text


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([3.0, 2.0, 1.0, 2.0, 3.0, 4.0], [2, 4, 5]),
        ([1.0, math.nan, math.nan, math.nan], [0, 2, 3]),
        ([math.nan, 5.0, math.inf, -math.inf, math.nan], [1, 3, 4]),
        ([math.nan, math.inf, math.nan], [1, 2]),
        ([2.0, 2.0, 2.0, 2.0], [0, 2, 3]),
    ],
)
def test_latest_and_best_steps_survive_non_finite_losses(checkpoints, losses, kept):
    small = {"decoder": {"w": np.ones(2)}}
    for step, loss in enumerate(losses):
        checkpoints.save(step, small, validation_loss=loss, metadata={})
    checkpoints.wait()
    assert checkpoints.steps() == kept
    assert checkpoints.latest_step() == kept[-1]
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == [str(k) for k in kept]
    finite = [math.isfinite(loss) for loss in checkpoints.validation_losses().values()]
    assert finite == [math.isfinite(losses[step]) for step in kept]


@pytest.mark.parametrize(("latest", "best"), [(0, 1), (1, -1)])
def test_retention_counts_are_checked(tmp_path, latest, best):
    with pytest.raises(UserError, match="keep_latest must be at least 1"):
        Checkpoints(tmp_path, keep_latest=latest, keep_best=best)


OTHER_DEVICES = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from vae_jax.checkpoint.saving import Checkpoints
assert jax.device_count() == 4
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
w = np.arange(32, dtype=np.float32).reshape(4, 8)
with Checkpoints(sys.argv[1]) as checkpoints:
    wanted = {"decoder": {"w": jax.ShapeDtypeStruct(w.shape, w.dtype, sharding=split)}}
    found = checkpoints.restore(wanted).items
    assert found["decoder"]["w"].sharding == split
    np.testing.assert_array_equal(found["decoder"]["w"], w)
    again = checkpoints.restore(found).items  # an array as the template hands on its sharding
    assert again["decoder"]["w"].sharding == split
    checkpoints.save(1, jax.tree.map(lambda x: x + 1, again), validation_loss=0, metadata={})
"""


def test_checkpoints_move_between_one_and_four_devices(checkpoints):
    w = jnp.arange(32, dtype=jnp.float32).reshape(4, 8)
    checkpoints.save(0, {"decoder": {"w": w}}, validation_loss=0, metadata={})
    checkpoints.wait()
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", OTHER_DEVICES, str(checkpoints.directory)],
        env=os.environ | flags,
        check=True,
    )
    found = checkpoints.restore({"decoder": {"w": w}})
    assert found.step == 1
    np.testing.assert_array_equal(found.items["decoder"]["w"], w + 1)
    assert found.items["decoder"]["w"].sharding == w.sharding


def test_record_is_plain_json_with_a_digest_per_leaf(checkpoints):
    save(checkpoints, 2, validation_loss=math.nan)
    text = (checkpoints.directory / "2" / "record" / "metadata").read_text()
    record = json.loads(text, parse_constant=pytest.fail)["record"]  # no NaN: strict JSON
    assert record["step"] == 2 and record["validation_loss"] is None
    leaf = record["items"]["decoder"]["params/dense/kernel"]
    assert leaf["shape"] == [4, 8] and leaf["dtype"] == "float32" and len(leaf["sha256"]) == 64

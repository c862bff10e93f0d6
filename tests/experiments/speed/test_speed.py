"""The benchmark from end to end on configs/tiny.py, and the check of its sides."""

import json

import numpy as np
import pytest

from configs import tiny
from experiments.speed import tasks
from experiments.speed.ours import Decoding, Training
from experiments.speed.peers.flax import FlaxPeer
from experiments.speed.peers.peer import PeerSide
from experiments.speed.side import TaskFolder, measure
from vae_jax.data.store.reading import open_store
from vae_jax.types import UserError


def make_folder(path, what, **model):
    config = tiny.get_config()
    config.model.update(model)
    tasks.make_task(config, what, seconds=0.1).save(path)
    tasks.write_images(config, path, "cpu", real_data=False)
    tasks.write_latents(path, config.model.z_dim)
    return TaskFolder(path)


@pytest.mark.slow
def test_against_plain_flax_from_the_command_line(command, tmp_path):
    out = tmp_path / "result.json"
    shown = command(
        "speed", "--config=configs/tiny.py", "--config.train.batch_size=4", "--against=flax",
        "--rounds=1", "--seconds=0.2", f"--json={out}",
    )  # fmt: skip
    result = json.loads(out.read_text())
    speed, other = result["images_per_second"], result["peers"]["flax"]
    assert speed > 0 and other > 0
    assert result["ratios"] == {"flax": pytest.approx(speed / other)}
    assert result["batch_size"] == 4 and result["config"]["train"]["batch_size"] == 4
    ours = result["sides"]["ours"]
    assert ours["images_per_second"] == [speed]
    assert ours["first_step_seconds_cold"] > 0 and ours["peak_memory_mib"] > 50
    agreed = result["agreed"]
    assert agreed["flax"]["grad_norm"] == pytest.approx(agreed["ours"]["grad_norm"], rel=1e-4)
    assert result["machine"]["matmul_flop_per_second"]["float32"] > 1e8
    for text in ("training, 16x16x3", "ours", "flax", "matrix products float32", "L2"):
        assert text in shown


@pytest.mark.slow
def test_flax_computes_our_loss_and_other_weights_do_not(tmp_path):
    model = {"norm": "none", "activation": "relu", "decoder_dense_activation": "relu"}
    folder = make_folder(tmp_path, "train", **model)
    ours, side = Training(folder).check(), PeerSide(folder, FlaxPeer(folder.task))
    assert side.check() == pytest.approx(ours, rel=1e-5)
    weights = folder.weights()
    kernel = weights["decoder/conv_0/kernel"]
    weights["decoder/conv_0/kernel"] = np.flip(kernel, 0)
    folder.save_check(weights, folder.check_batch()[1])
    other = side.check()
    assert abs(other["grad_norm"] - ours["grad_norm"]) > 1e-3 * ours["grad_norm"]
    assert side.step() == folder.task.batch_size  # A check leaves a state to train.
    side.synchronize()


def test_decoding_agrees_and_is_measured(tmp_path):
    folder = make_folder(tmp_path, "decode")
    ours = Decoding(folder)
    expected = ours.check()
    assert PeerSide(folder, FlaxPeer(folder.task)).check() == pytest.approx(expected, rel=1e-5)
    assert measure(ours, 0.1) > 0


def test_peers_decode_all_points_in_pieces(tmp_path):
    class Recorder:
        def __init__(self):
            self.pieces = []

        def decode(self, z):
            self.pieces.append(z)
            return np.zeros((len(z), 16, 16, 3))

    folder, peer = make_folder(tmp_path, "decode"), Recorder()
    z = np.random.default_rng(1).standard_normal((600, 4), np.float32)
    np.save(folder.path / "latents.npy", z)
    side = PeerSide(folder, peer)
    assert side.step() == 600
    side.synchronize()
    assert [len(piece) for piece in peer.pieces] == [256, 256, 88]
    np.testing.assert_array_equal(np.concatenate(peer.pieces), z)


def test_what_cannot_be_measured_is_said(command):
    shown = command("speed", "--config=configs/tiny.py", "--against=jax", expect=2)
    assert "--against=jax is unknown; valid are flax" in shown and "Traceback" not in shown
    config = tiny.get_config()
    config.model.dropout = 0.1
    with pytest.raises(UserError, match="config.model.dropout is 0.1, but the peers only have 0.0"):
        tasks.refuse_beyond_peers(config)


def test_pools_are_whole_batches_of_the_training_split(tmp_path, tiny_config, tiny_store):
    tasks.write_images(tiny_config, tmp_path, "cpu", real_data=True)
    images = np.load(tmp_path / "images.npy")
    assert images.shape == (32, 16, 16, 3)  # Four of the five batches of 37 images are whole.
    np.testing.assert_array_equal(images, open_store(tiny_store).split("train").take(range(32)))
    tiny_config.train.batch_size = 64
    with pytest.raises(UserError, match="37 images, not even one batch"):
        tasks.write_images(tiny_config, tmp_path, "cpu", real_data=True)

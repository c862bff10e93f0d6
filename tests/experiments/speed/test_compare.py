"""The sequence of measurements, with hand-made speeds in place of measured ones."""

import pytest

from configs import tiny
from experiments.speed import compare as comparing
from experiments.speed.compare import Comparison
from experiments.speed.profile import profile_layers
from experiments.speed.programs import Program


def test_best_batch_is_found_compared_and_run_whole(monkeypatch):
    calls, shown = [], []

    def compare(config, what, how):
        size = config.train.batch_size
        calls.append((size, len(how.peers), how.rounds))
        return {"images_per_second": -abs(size - 30.0), "batch_size": size}

    monkeypatch.setattr(comparing, "compare", compare)
    monkeypatch.setattr(comparing, "whole_run", lambda config, how: config.train.batch_size)
    how = Comparison([Program("peer", "module:run")], rounds=3, seconds=1.0, peer_python="python")
    result = comparing.report(tiny.get_config(), how, lambda one: shown.append(one["batch_size"]))
    assert calls == [(8, 1, 3), (16, 0, 1), (32, 0, 1), (64, 0, 1), (128, 0, 1), (32, 1, 3)]
    assert shown == [8, 32]
    assert result["batch_size"] == 8 and result["best_batch"]["batch_size"] == 32
    assert result["whole_runs"] == {"8": 8, "32": 32}
    assert list(result["batch_sizes"]) == ["8", "16", "32", "64", "128"]


@pytest.mark.slow
def test_every_layer_is_profiled():
    rows = profile_layers(tiny.get_config())
    names = ["encoder/conv_0", "encoder/conv_1", "encoder/mean", "encoder/log_var"]
    names += ["decoder/dense", "decoder/conv_0", "decoder/conv_1"]
    assert [row["name"] for row in rows] == names
    assert [row["first"] for row in rows] == [True] + 6 * [False]
    assert rows[0]["flop"] == 8 * 2 * 8 * 8 * 9 * 3 * 4
    assert all(row["forward"] > 0 and row["gradients"] > 0 for row in rows)

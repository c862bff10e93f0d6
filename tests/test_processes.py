"""Two real processes over loopback agree, and read disjoint and complete shares."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vae_jax import processes
from vae_jax.data.batches import epoch_order
from vae_jax.types import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What both processes of `in_two_processes.py` saw."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script = Path(__file__).with_name("in_two_processes.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(number), str(folder / f"{number}.json")],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    return [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]


def test_each_process_reads_its_share_of_every_batch_alone(seen):
    for epoch in (0, 1):
        order = epoch_order(5, epoch, 32).reshape(4, 8)
        (first, sums), (second, same) = (process["rows"][epoch] for process in seen)
        assert first == order[:, :4].reshape(-1).tolist()
        assert second == order[:, 4:].reshape(-1).tolist()
        assert sorted(first + second) == list(range(32))
        assert sums == same == [sum(i % 256 for i in range(32 * 12))]


def test_processes_agree_on_numbers_results_and_errors(seen):
    assert [process["first"] for process in seen] == [True, False]
    assert [process["calls"] for process in seen] == [1, 0]
    for process in seen:
        assert (process["least"], process["greatest"], process["on_first"]) == (10, 11, 7)
        assert process["refusal"] == "the disk is full"


def test_one_process_agrees_with_itself():
    assert not processes.several() and processes.is_first()
    assert processes.least(3) == processes.greatest(3) == processes.on_first(lambda: 3) == 3
    assert processes.describe_loss(RuntimeError("Gloo AllReduce failed")) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1:1", None, 0), "go together"),
        (("127.0.0.1:1", 2, 2), "--process_id is 2, but must be 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        processes.join(*given)

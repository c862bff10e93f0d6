"""Which devices take part; two real processes over loopback agree and read disjoint shares.

The checks in `train/on_eight_devices.py` need a process of their own.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from vae_jax import devices
from vae_jax.data.batches import epoch_order
from vae_jax.devices import data_share, members_devices
from vae_jax.types import UserError

ROOT = Path(__file__).parents[1]


class Device(NamedTuple):
    """All that the rule looks at."""

    id: int
    process_index: int


@pytest.fixture
def machine(monkeypatch):
    """Makes JAX report some number of devices, divided among processes."""

    def has(count, processes=1):
        devices = [Device(i, i * processes // count) for i in range(count)]
        monkeypatch.setattr("jax.devices", lambda: devices)

    return has


def numbers(devices):
    return [device.id for device in devices]


def test_all_devices_or_the_largest_number_that_divides_both_batches(tiny_config, machine):
    machine(8)
    assert numbers(data_share(tiny_config).devices) == list(range(8))
    machine(6)
    assert numbers(data_share(tiny_config).devices) == [0, 1, 2, 3]
    assert "of 6: no larger number divides" in data_share(tiny_config).reason
    machine(8)
    tiny_config.eval.batch_size = 6
    assert numbers(data_share(tiny_config).devices) == [0, 1]
    tiny_config.eval.batch_size, tiny_config.train.accumulate = 8, 4
    assert numbers(data_share(tiny_config).devices) == [0, 1]


def test_every_process_takes_part_with_equally_many_devices(tiny_config, machine):
    machine(12, processes=2)
    assert numbers(data_share(tiny_config).devices) == [0, 1, 2, 3, 6, 7, 8, 9]
    tiny_config.parallel.data = 4
    assert numbers(data_share(tiny_config).devices) == [0, 1, 6, 7]
    tiny_config.parallel.data = 0
    machine(6, processes=3)
    with pytest.raises(UserError, match="cannot be divided among 3 processes"):
        data_share(tiny_config)


@pytest.mark.parametrize(
    ("asked", "message"),
    [(16, "there are 8 devices"), (3, "config.train.batch_size 8 .*among 3 devices")],
)
def test_a_number_that_cannot_be_is_refused(tiny_config, machine, asked, message):
    machine(8)
    tiny_config.parallel.data = asked
    with pytest.raises(UserError, match=message):
        data_share(tiny_config)


def test_members_take_no_more_devices_than_there_are_members(machine):
    machine(8)
    assert numbers(members_devices(0, 3)) == [0, 1, 2]
    assert numbers(members_devices(2, 3)) == [0, 1]
    with pytest.raises(UserError, match="config.parallel.members is 9"):
        members_devices(9, 3)
    machine(4, processes=2)
    assert numbers(members_devices(0, 1)) == [0, 2]


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_eight_virtual_devices(marked):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    checks = ROOT / "tests" / "train" / "on_eight_devices.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", marked, checks],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


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
    assert not devices.several() and devices.is_first()
    assert devices.least(3) == devices.greatest(3) == devices.on_first(lambda: 3) == 3
    assert devices.describe_loss(RuntimeError("Gloo AllReduce failed")) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1:1", None, 0), "go together"),
        (("127.0.0.1:1", 2, 2), "--process_id is 2, but must be 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        devices.join(*given)

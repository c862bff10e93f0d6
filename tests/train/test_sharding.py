"""Which devices take part; the checks in `on_eight_devices.py` need a process of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from vae_jax.train.sharding import data_share, members_share
from vae_jax.types import UserError


class Device(NamedTuple):
    """All that the rule looks at."""

    id: int
    process_index: int


def devices(count, processes=1):
    return [Device(i, i * processes // count) for i in range(count)]


def numbers(share):
    return [device.id for device in share.devices]


def test_all_devices_or_the_largest_number_that_divides_both_batches(tiny_config):
    assert numbers(data_share(tiny_config, devices(8))) == list(range(8))
    assert numbers(data_share(tiny_config, devices(6))) == [0, 1, 2, 3]
    assert "of 6: no larger number divides" in data_share(tiny_config, devices(6)).reason
    tiny_config.eval.batch_size = 6
    assert numbers(data_share(tiny_config, devices(8))) == [0, 1]
    tiny_config.eval.batch_size, tiny_config.train.accumulate = 8, 4
    assert numbers(data_share(tiny_config, devices(8))) == [0, 1]


def test_every_process_takes_part_with_equally_many_devices(tiny_config):
    assert numbers(data_share(tiny_config, devices(12, processes=2))) == [0, 1, 2, 3, 6, 7, 8, 9]
    tiny_config.parallel.data = 4
    assert numbers(data_share(tiny_config, devices(12, processes=2))) == [0, 1, 6, 7]
    tiny_config.parallel.data = 0
    with pytest.raises(UserError, match="cannot be divided among 3 processes"):
        data_share(tiny_config, devices(6, processes=3))


@pytest.mark.parametrize(
    ("asked", "message"),
    [(16, "there are 8 devices"), (3, "config.train.batch_size 8 .*among 3 devices")],
)
def test_a_number_that_cannot_be_is_refused(tiny_config, asked, message):
    tiny_config.parallel.data = asked
    with pytest.raises(UserError, match=message):
        data_share(tiny_config, devices(8))


def test_members_take_no_more_devices_than_there_are_members():
    assert numbers(members_share(0, 3, devices(8))) == [0, 1, 2]
    assert numbers(members_share(2, 3, devices(8))) == [0, 1]
    assert numbers(members_share(0, 1, devices(4, processes=2))) == [0, 2]
    with pytest.raises(UserError, match="config.parallel.members is 9"):
        members_share(9, 3, devices(8))


def test_on_eight_virtual_devices():
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    checks = Path(__file__).with_name("on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(checks)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

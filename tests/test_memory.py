"""What the machine cannot hold is refused before it is made; what is freed is kept."""

import os
import subprocess
import sys

import jax
import pytest

from configs import tiny
from vae_jax import memory
from vae_jax.models.vae import make_vae
from vae_jax.run import prior_latents
from vae_jax.train.state import init_variables
from vae_jax.types import UserError

FREED = """
import resource, sys
from pathlib import Path
import numpy as np
from vae_jax import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

if sys.argv[1] == "keep":
    memory.keep_freed_memory()
before = resident()
np.full(64 << 18, 1.0, np.float32)  # 64 MiB, freed at once
print((resident() - before) * resource.getpagesize() >> 20)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc")
def test_freed_memory_stays_with_the_process():
    def mebibytes(how):
        command = [sys.executable, "-c", FREED, how]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert mebibytes("give back") < 16 and mebibytes("keep") > 48


@pytest.mark.parametrize(
    ("count", "text"),
    [(3, "3 bytes"), (2048, "2 KiB"), (6 << 30, "6 GiB"), (1 << 60, "1,048,576 TiB")],
)
def test_bytes_are_written_in_the_nearest_unit(count, text):
    assert memory.written(count) == text


def test_the_smallest_limit_counts(monkeypatch, tmp_path):
    assert 1 << 28 < memory.machine_bytes() < 1 << 50
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTROL_GROUP_LIMITS", (group, tmp_path / "none"))
    for text, limit in (("4096\n", 4096), ("max\n", memory.machine_bytes())):
        group.write_text(text)
        assert memory.machine_bytes() == limit


def test_points_and_parameters_beyond_the_machine_are_refused():
    with pytest.raises(UserError, match="1,000,000,000,000 latent points of 64 dimensions would"):
        prior_latents(0, 10**12, 64)
    config = tiny.get_config()
    config.model.z_dim = 10**9
    model = make_vae(config.model, config.data.image_shape)
    with pytest.raises(UserError, match=r"parameters would need .* this machine has .*z_dim"):
        init_variables(model, jax.random.key(0))

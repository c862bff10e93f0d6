"""Strict JAX for every test: silent broadcasting raises, and warnings are errors (pyproject)."""

import gc
import os
import tempfile
from pathlib import Path

# Tests spend most of their time compiling: less optimisation, and one cache of programs for all
# workers and for the command lines that they start. Set before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
_CACHE = tempfile.TemporaryDirectory(prefix="vae_jax_tests_", ignore_cleanup_errors=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # There is a worker for every core.

import jax
import numpy as np
import pytest
from stores import write_store
from told_models import told_config

from configs import tiny
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.run_folder import read_rows
from vae_jax.train.persistence import restore
from vae_jax.train.setup import make_experiment
from vae_jax.train.trainer import fit

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.freeze()  # Tracing makes many objects: what is imported need not be searched for garbage.
gc.set_threshold(50_000, 20, 20)

TINY_COUNTS = {0: 37, 2: 11}  # images of the training (0) and the test (2) split
CLOCK = ("images_per_second", "share_waiting")  # fields of a logged row that no two runs share


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """A store of 16x16 colour images with three attributes; 37 for training, 11 for testing."""
    rng = np.random.default_rng(0)
    splits = np.repeat(list(TINY_COUNTS), list(TINY_COUNTS.values())).astype(np.uint8)
    count = len(splits)
    labels = rng.integers(0, 2, (count, 3)).astype(np.uint8)
    ramp = np.linspace(0, 1, 16)[None, :, None, None] * np.ones((1, 1, 16, 3))
    tint = 0.5 + 0.4 * (labels[:, None, None, :] - 0.5)
    images = np.clip(ramp * tint + 0.05 * rng.normal(size=(count, 16, 16, 3)), 0, 1)
    directory = tmp_path_factory.mktemp("data") / "tiny"
    write_store(
        directory,
        np.round(images * 255).astype(np.uint8),
        splits,
        file_names=[f"{i:06d}.jpg" for i in range(count)],
        labels=labels,
        label_names=("Red", "Green", "Blue"),
    )
    return directory


@pytest.fixture(scope="session")
def told_run(tmp_path_factory, tiny_store):
    """Config and folder of a model that is told KL weight and latent size: two epochs in one go."""
    config = told_config(**{"data.name": "celeba", "data.path": str(tiny_store)})
    workdir = tmp_path_factory.mktemp("told")
    fit(config, workdir, lambda *_: None)
    return config, workdir


@pytest.fixture
def little_memory():
    """Fails the test if the process's memory grows by more than 200 MB at any moment of it."""

    def kilobytes(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is measured on Linux only")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak up to now
    before = kilobytes("VmRSS:")
    yield
    assert kilobytes("VmHWM:") - before < 200_000


@pytest.fixture
def tiny_config(tiny_store):
    """configs/tiny.py on `tiny_store`: five steps an epoch, the last batch with 5 of 8 images."""
    config = tiny.get_config()
    config.data.name = "celeba"
    config.data.path = str(tiny_store)
    return config


@pytest.fixture(scope="session")
def final_state():
    """The last state that a run of a config saved in a folder."""

    def of_run(config, folder):
        saved = SavedSteps(folder / "checkpoints")
        return restore(saved, make_experiment(config, total_steps=10).init_state)[0]

    return of_run


@pytest.fixture(scope="session")
def assert_same_run(final_state):
    """Fails unless two runs of a config ended in one state, after the same rows, bit for bit."""

    def compare(config, folder, other):
        states = (final_state(config, workdir) for workdir in (folder, other))
        jax.tree.map(np.testing.assert_array_equal, *states)
        rows = [
            [{k: v for k, v in row.items() if k not in CLOCK} for row in read_rows(workdir)]
            for workdir in (folder, other)
        ]
        assert rows[0] == rows[1]

    return compare

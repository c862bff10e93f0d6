"""Processes that work beside this one: order, death, and what they import."""

import os
import subprocess
import sys

import pytest

from vae_jax.data.workers import in_processes
from vae_jax.types import UserError

SCRIPT = """
import sys
if __name__ != "__main__":
    sys.exit("the main script was imported again")
from vae_jax.data.workers import in_processes
sys.exit(list(in_processes("jax".__contains__, ["j", "b"], 2)) != [True, False])
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(in_processes(abs, range(-9, 1), workers)) == list(range(9, -1, -1))


def test_a_killed_process_is_one_sentence():
    with pytest.raises(UserError, match="worker process was ended from outside: if memory"):
        list(in_processes(os._exit, [3, 3, 3], 2))


def test_processes_do_not_import_the_main_script(tmp_path):
    (tmp_path / "main.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, tmp_path / "main.py"], env=environment, check=True)


@pytest.mark.parametrize("module", ["faces.files", "store.decoding"])
def test_what_processes_import_stays_free_of_jax(module):
    code = f"import sys, vae_jax.data.{module}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

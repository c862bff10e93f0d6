"""Processes and rounds, with hand-made sides that compute nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.speed.programs import Program
from experiments.speed.rounds import Runner, check_agreement, run_rounds
from vae_jax.types import UserError

SIDE = """
import os, sys, time, subprocess

def run(call):
    with open("order.txt", "a") as log:
        print(call.variant, call.action, file=log)
    if call.variant == "broken":
        raise ValueError("no such thing")
    if call.variant == "long":
        worker = subprocess.Popen(["sleep", "600"])
        with open("started.txt", "w") as file:
            print(os.getpid(), worker.pid, file=file)
        worker.wait()
    print("some library talks", flush=True)
    result = {"value": float(call.variant)}
    return result | ({"tunables": os.environ["GLIBC_TUNABLES"]} if call.action == "time" else {})
"""


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "hand_made.py").write_text(SIDE)
    return Runner(tmp_path, sys.executable)


def program(value, **rest):
    return Program(f"side {value}", "hand_made:run", str(value), **rest)


def test_rounds_alternate_on_huge_pages(runner):
    sides = [program(1), program(2), program(3)]
    results = run_rounds(runner, sides, 2)
    order = (runner.folder / "order.txt").read_text().split("\n")[:-1]
    assert order == [f"{value} time" for value in (1, 2, 3, 2, 3, 1)]
    assert [r["value"] for r in results["side 2"]] == [2.0, 2.0]
    assert "glibc.malloc.hugetlb=1" in results["side 1"][0]["tunables"].split(":")


def test_sides_that_disagree_are_refused(runner):
    sides = [program(1.00001), program(0.99999)]
    found = check_agreement(runner, program(1), sides, {"value": 1e-4})
    assert json.loads(json.dumps(found))["side 0.99999"] == {"value": 0.99999}
    for wrong in (1.001, -1.0, float("nan")):
        with pytest.raises(UserError, match="does not compute what we compute: value is"):
            check_agreement(runner, program(1), [program(wrong)], {"value": 1e-4})


def test_failures_are_one_sentence(runner):
    with pytest.raises(UserError, match="side broken failed with exit code 1: ValueError: no such"):
        runner.run(program("broken"), "time")
    lacking = program(1, packages=("json", "no_such_package"))
    with pytest.raises(UserError, match="needs the package 'no_such_package', which .* extra"):
        runner.require([lacking])
    runner.require([program(1, packages=("json",))])
    runner.peer_python = "/no/such/python"
    with pytest.raises(UserError, match="--peer_python=/no/such/python cannot be started"):
        runner.require([lacking])


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def wait_for(condition):
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


MAIN = """
import signal, sys
from pathlib import Path
from experiments.speed.__main__ import end_on_sigterm
from experiments.speed.programs import Program
from experiments.speed.rounds import Runner

end_on_sigterm()
Runner(Path(sys.argv[1]), sys.executable).run(Program("long", "hand_made:run", "long"), "time")
"""


def test_sigterm_ends_the_side_and_its_workers(runner):
    started = runner.folder / "started.txt"
    main = subprocess.Popen([sys.executable, "-c", MAIN, runner.folder], cwd=runner.folder)
    wait_for(lambda: started.exists() and len(started.read_text().split()) == 2)
    pids = [int(pid) for pid in started.read_text().split()]
    assert all(map(alive, pids))
    main.send_signal(signal.SIGTERM)
    assert main.wait(60) == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(alive, pids)))

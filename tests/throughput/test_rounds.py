"""Processes and rounds, with hand-made sides that compute nothing."""

import json
import sys

import pytest

from vae_jax.throughput.rounds import Program, Runner, check_agreement, run_rounds
from vae_jax.types import UserError

SIDE = """
import json, os, sys
folder, action, started, variant = sys.argv[1:]
with open("order.txt", "a") as log:
    print(variant, action, file=log)
if variant == "broken":
    sys.exit("ValueError: no such thing")
result = {"value": float(variant), "tunables": os.environ["GLIBC_TUNABLES"]}
print("some library talks", flush=True)
print("RESULT " + json.dumps(result if action == "time" else {"value": float(variant)}))
"""


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "hand_made.py").write_text(SIDE)
    return Runner(tmp_path, sys.executable)


def program(value, **rest):
    return Program(f"side {value}", "hand_made", str(value), **rest)


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

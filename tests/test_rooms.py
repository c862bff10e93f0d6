"""The plan of the building: which rooms there are, and that imports run one way."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a room imports rooms below it and itself, never its neighbours.
FLOORS = (
    {"types"},
    {"files", "kl_controller", "locks", "losses", "memory", "progress", "schedules", "streams"},
    {"devices"},
    {"data", "kl_conventions", "metrics", "models", "report"},
    {"checkpoint", "config"},
    {"run_folder"},
    {"run", "train"},
    {"subject"},
    {"priors"},
    {"interop", "studies"},
    {"experiments"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("vae_jax", "experiments")
    for path in (ROOT / folder).rglob("*.py")
)


def module_of(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def room_of(module):
    top, *rest = module.split(".")
    return top if top == "experiments" or not rest else rest[0]


def imported(path):
    """Our own modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        found |= {name for name in names if name in MODULES}
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path):
    room = room_of(module_of(path))
    if room != "vae_jax":
        others = imported(path) - {"vae_jax"}
        above = {
            module
            for module in others
            if room_of(module) != room and FLOOR[room_of(module)] >= FLOOR[room]
        }
        assert not above, f"{path} (floor {FLOOR[room]}) imports what is not below it"


def test_no_circle_and_no_room_that_the_plan_forgets():
    graph = {module_of(path): imported(path) - {module_of(path)} for path in FILES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("vae_jax.types") < order.index("vae_jax.losses")
    assert {room_of(module) for module in MODULES} - {"vae_jax"} == set(FLOOR)


def test_one_file_knows_orbax():
    def knows(path):
        names = [
            name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([a.name for a in node.names] + [getattr(node, "module", None) or ""])
        ]
        return any(name.split(".")[0] == "orbax" for name in names)

    assert [str(path) for path in FILES if knows(path)] == ["vae_jax/checkpoint/orbax_items.py"]

"""The programs that are timed: ours and those of the peers; and one that measures the machine."""

from __future__ import annotations

from dataclasses import dataclass

OURS = "ours"


@dataclass(frozen=True)
class Program:
    """One side of a comparison.

    Attributes:
        name: Its name in tables and for `--against`.
        entry: The function that `dispatch` calls, as 'module:function'.
        variant: An argument of that function, such as 'compile'.
        packages: The packages of the extra `benchmark` that it needs.
    """

    name: str
    entry: str
    variant: str = ""
    packages: tuple[str, ...] = ()


_HERE = "experiments.speed"
TRAIN = Program(OURS, f"{_HERE}.ours:train")
DECODE = Program(OURS, f"{_HERE}.ours:decode")
PREPARE = Program(OURS, f"{_HERE}.commands:prepare", "96")
MACHINE = Program("machine", f"{_HERE}.machine:run")
PROFILE = Program("profile", f"{_HERE}.profile:run")

_TORCH, _KERAS = ("torch",), ("keras", "tensorflow")
PEERS = {
    "flax": (Program("flax", f"{_HERE}.peers.flax:run"),),
    "torch": (Program("torch", f"{_HERE}.peers.torch:run", "eager", _TORCH),),
    "torch_compile": (Program("torch_compile", f"{_HERE}.peers.torch:run", "compile", _TORCH),),
    "keras": (
        Program("keras", f"{_HERE}.peers.keras:run", "graph", _KERAS),
        Program("keras_jit", f"{_HERE}.peers.keras:run", "jit", _KERAS),
    ),
}
PILLOW = Program("pillow", f"{_HERE}.peers.pillow:run", "96")


def whole_run(count: int) -> Program:
    """Returns a training on `count` images, from the start of its process to the last step."""
    return Program("whole run", f"{_HERE}.ours:whole_run", str(count))


def sweep(member: str = "") -> Program:
    """Returns a sweep as one command, or one of its members as a run of its own."""
    return Program(member or "sweep", f"{_HERE}.commands:sweep", member)

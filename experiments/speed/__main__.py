"""Measure speed, alone or against other libraries, in alternated rounds of separate processes.

    python -m experiments.speed --config=configs/celeba.py \
        --against=flax,torch,torch_compile,keras --rounds=5 --json=celeba.json

The peers need the extra `benchmark`, here or in the environment of --peer_python. Every side
first proves that it computes the same loss and gradient norm from the same weights.

    --what=train    images/s of training (default)
    --what=decode   images/s of decoding
    --what=prepare  images/s of preparing JPEGs, against a bare Pillow loop
    --what=profile  where the time of a training step goes
    --what=sweep    a sweep as one command against its members one by one
    --what=report   training at the config's and at the best batch size, and a whole run of each
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from absl import flags

from experiments import app, command_line
from experiments.config_file import ConfigFlag
from experiments.speed.programs import PEERS
from vae_jax.files import json_bytes, write_file
from vae_jax.types import UserError

_CONFIG = ConfigFlag("Config file.", required=False)
_WHAT = flags.DEFINE_enum(
    "what",
    "train",
    ["train", "decode", "prepare", "profile", "report", "sweep"],
    "What to measure.",
)
_AGAINST = flags.DEFINE_list("against", [], f"Peers: {', '.join(PEERS)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 1, "How often each side is timed.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "How long each time, in seconds.", lower_bound=0.1)
_PYTHON = flags.DEFINE_string("peer_python", sys.executable, "Interpreter of Keras and PyTorch.")
_REAL_DATA = flags.DEFINE_bool("real_data", False, "Take images of config.data, not random ones.")
_FILES = flags.DEFINE_integer("files", 12_000, "JPEGs of --what=prepare.", lower_bound=64)
_JSON = command_line.out_file(None, "the result as JSON.", "json")


def main() -> None:
    """Measures, prints the result, and writes it."""
    for name in _AGAINST.value:
        if name not in PEERS:
            raise UserError(f"--against={name} is unknown; valid are {', '.join(PEERS)}")
    if _WHAT.value != "prepare" and _CONFIG.path is None:
        raise UserError(f"--what={_WHAT.value} needs --config")
    end_on_sigterm()
    result = _measure(_WHAT.value)
    written = [write_file(_JSON.value, json_bytes(result))] if _JSON.value else []
    config = _CONFIG.path or "configs/celeba.py"
    then = {"what": "profile"} if _WHAT.value == "train" else {}
    command_line.tell(written, "speed", config=config, **then)


def end_on_sigterm() -> None:
    """Lets SIGTERM unwind this process as an error would, so that it ends its sides."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _measure(what: str) -> dict[str, Any]:
    from experiments.speed import compare, summary

    peers = [program for name in _AGAINST.value for program in PEERS[name]]
    how = compare.Comparison(peers, _ROUNDS.value, _SECONDS.value, _PYTHON.value, _REAL_DATA.value)
    if what == "profile":
        result = compare.profile(_CONFIG.value, how)
        summary.print_profile(result)
    elif what == "report":
        result = compare.report(_CONFIG.value, how, summary.print_summary)
        summary.print_report(result)
    else:
        if what == "prepare":
            result = compare.compare_preparation(how, _FILES.value)
        elif what == "sweep":
            result = compare.compare_sweep(_CONFIG.value, how)
        else:
            result = compare.compare(_CONFIG.value, what, how)
        summary.print_summary(result)
    return result


if __name__ == "__main__":
    app.run(main)

"""Flags of the command lines that open a trained run."""

from __future__ import annotations

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Checkpoint step; the newest by default.")

"""Flags of the command lines that open a trained run."""

from __future__ import annotations

from experiments import command_line

WORKDIR, STEP = command_line.workdir(), command_line.step()

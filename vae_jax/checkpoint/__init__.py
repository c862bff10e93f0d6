"""Checkpoints of a run: what is on disk, verified reading, and saving in the background."""

"""Priors as files of a run folder, WORKDIR/priors/NAME.npz, written all or nothing and verified.

A file holds the arrays of the density and a sealed record: kind, checkpoint, and the SHA-256 of
every array. A prior belongs to one checkpoint, since the codes of another have another density.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.checkpoint import digests
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.files import check_replaceable, explained, npz_bytes, replace_synced
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import KINDS, NORMAL, Prior, fit_to_run, normal_prior
from vae_jax.run import Run
from vae_jax.run_folder import CHECKPOINTS
from vae_jax.types import UserError

FOLDER = "priors"
RECORD = "record"  # the array of a file that holds its sealed JSON
LARGEST_FILE = 2**30  # bytes; a mixture of ten in 1,000 dimensions takes 40 MB


def check_name(name: str) -> None:
    """Raises a UserError unless this is a valid name of a prior in a run folder."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", name) or name == NORMAL:
        raise UserError(
            f"--name is {name!r}, but the name of a prior has letters, digits, '_', '-', '+' and "
            f"'.' alone, and {NORMAL!r} is N(0, I)"
        )


def keep_prior(run: Run[VAE], prior: Prior) -> Path:
    """Writes a prior into the run folder, synced to the disk; replaces one of the same name.

    Args:
        run: The run that the prior was fitted to.
        prior: The prior, see `fitted.fit_to_run`.

    Returns:
        The path of the file.

    Raises:
        UserError: The file cannot be written, or the name is not valid.
    """
    check_name(prior.name)
    arrays = digests.host_copies({"location": prior.location, "density": prior.density})
    record = _belongs(run) | {
        "kind": prior.kind,
        "facts": prior.facts,
        "labels": list(run.label_names),
        "leaves": digests.describe_leaves(arrays),
    }
    sealed = json.dumps(digests.seal(record)).encode()
    path = run.workdir / FOLDER / f"{prior.name}.npz"
    with explained(path):
        path.parent.mkdir(exist_ok=True)
        check_replaceable(path)
        replace_synced(path, npz_bytes(**{RECORD: np.frombuffer(sealed, np.uint8)} | arrays))
    return path


def _belongs(run: Run[VAE]) -> dict[str, Any]:
    """Returns what a prior belongs to: checkpoint, latent size, and the pair of a told model."""
    return {
        "z_dim": run.model.z_dim,
        "pair": None if run.pair is None else [float(value) for value in run.pair],
        "step": run.step,
        "networks": SavedSteps(run.workdir / CHECKPOINTS).networks_digest(run.step),
    }


def kept_names(run: Run[VAE]) -> list[str]:
    """Returns the names of the priors in the run folder, whatever they were fitted to."""
    return sorted(path.stem for path in (run.workdir / FOLDER).glob("*.npz"))


def open_prior(run: Run[VAE], name: str) -> Prior:
    """Reads a prior of a run and verifies it.

    Args:
        run: A run opened at the checkpoint that the prior was fitted to.
        name: Name of the prior; `normal` for N(0, I), which needs no file.

    Raises:
        UserError: There is no such prior, it is damaged, or it belongs to another checkpoint.
    """
    if name == NORMAL:
        return normal_prior(run.model.z_dim, len(run.label_names))
    path = run.workdir / FOLDER / f"{name}.npz"
    if not path.is_file():
        there = ", ".join(kept_names(run)) or "none"
        raise UserError(
            f"{str(run.workdir)!r} has no prior {name!r} (there: {there}); fit one with "
            f"python -m experiments.fit_prior --workdir={run.workdir} --kind=gaussian"
        )
    again = f"fit it again with experiments.fit_prior --name={name}"
    record, arrays = _read(path, again)
    for fact, value in _belongs(run).items():
        if record.get(fact) != value:
            what = {"z_dim": "latent dimensions", "pair": "KL weight and latent size"}
            found = f"{record.get(fact)} {what.get(fact, fact)}, not {value}"
            if fact in ("step", "networks"):
                found = f"another checkpoint (step {record.get('step')}, not {run.step})"
                if record.get("step") == run.step:
                    found = "another checkpoint of the same step"
            raise UserError(f"{path} was fitted to codes of {found}; {again}")
    return _built(path, again, name, record, arrays, len(run.label_names))


def kept_or_fitted(run: Run[VAE], name: str) -> Prior:
    """Returns a prior of the run; a kind that has no file yet is fitted and kept first."""
    if name in KINDS and not (run.workdir / FOLDER / f"{name}.npz").is_file():
        keep_prior(run, fit_to_run(run, name))
    return open_prior(run, name)


def _read(path: Path, again: str) -> tuple[dict[str, Any], digests.Leaves]:
    """Returns the record and the arrays of a file, verified against each other."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            record = digests.unseal(file[RECORD].tobytes())
            arrays = {leaf: np.asarray(file[leaf], order="C") for leaf in record["leaves"]}
        if digests.describe_leaves(arrays) != record["leaves"]:
            raise ValueError("an array's SHA-256 differs from the one saved")
        return record, arrays
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for broken files.
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); {again}") from None


def _built(
    path: Path, again: str, name: str, record: Any, arrays: digests.Leaves, label_dim: int
) -> Prior:
    """Returns the prior if the arrays fit its kind, which a seal alone does not prove."""
    try:
        kind, z_dim, facts = record["kind"], record["z_dim"], record["facts"]
        location = np.zeros((1 + label_dim, z_dim), np.float32)
        template = {"location": location, "density": KINDS[kind].empty(z_dim, facts)}
        if wrong := digests.differences(template, record["leaves"]):
            raise ValueError(wrong[0])
        found = digests.rebuild(template, arrays)
        return Prior(kind, name, found["location"], found["density"], facts)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from None

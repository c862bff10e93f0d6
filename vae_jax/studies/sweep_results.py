"""The results of a sweep: what was measured of every member, stored, read, merged and tabulated.

`sweep_measurement` measures the members; the results may also come from elsewhere, so that they are
checked when they are read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.report.page import RESULTS
from vae_jax.types import UserError

STUDY = "ablation"  # folder of the page in that of the sweep
PLANE = "plane"  # the same for a told model, whose cells take the place of members
SCHEMA = 3
CURVES = ("loss", "recon_nats", "kl")
LARGEST_FILE = 2**28  # bytes of a results file; 100 members take about one MiB
MOST_MEMBERS = 5000

Figures = dict[str, float | None]


@dataclass(frozen=True)
class MeasuredMember:
    """A member of a sweep and what was measured of it.

    Attributes:
        name: Name of its run folder.
        z_dim: Latent size.
        kl_weight: KL weight of its config.
        learning_rate: Learning rate of its config.
        seed: Seed of training and of measuring.
        status: 'finished', 'interrupted', 'diverged' or 'failed'.
        reason: Why it has not finished, in words; empty when finished.
        step: Step of its last checkpoint.
        seconds: Time that its training took.
        config_digest: Digest of its config.
        curves: By split, the epochs and the figures `CURVES` after each.
        test: Figures on the test split; empty unless finished. Nats per image: `recon`, `kl`,
            `elbo`; `psnr` in dB; the comparison of samples of N(0, I), see
            `sweep_measurement.set_figures`. Figures of that comparison that end with the name of a
            prior are those of its samples, with `_codes` those of decoded codes of training images,
            which no prior can beat but by luck, and with `_floor` those of these images themselves.
            Figures that begin with `linear_` are those of a linear VAE on training images.
        validation: The same on the validation split, for choosing; empty without one.
        kl_per_dimension: `[Z]`, nats per image on the test split.
        folder: The run folder, where samples.png and reconstructions.png lie.
    """

    name: str
    z_dim: int
    kl_weight: float
    learning_rate: float
    seed: int
    status: str
    reason: str
    step: int
    seconds: float
    config_digest: str
    curves: dict[str, dict[str, list[float | None]]]
    test: Figures
    validation: Figures
    kl_per_dimension: list[float]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether there is anything to compare."""
        return self.status == "finished"


@dataclass(frozen=True)
class MeasuredSweep:
    """All members of a sweep, or of several sweeps that differ in nothing else.

    Attributes:
        workdirs: Folders of the sweeps.
        config: The validated config, with its section `sweep`.
        images: Numbers of images: `train`, `validation`, `test`, and those of test that samples are
            `compared` with.
        facts: When, where and with which versions the members were measured.
        seconds: Time of `training` and of `measuring`.
        differences: Fields that differ from configs/default.py, and their values.
        members: The members, see `in_order`.
    """

    workdirs: tuple[str, ...]
    config: ConfigDict
    images: dict[str, int]
    facts: dict[str, str]
    seconds: dict[str, float]
    differences: dict[str, str]
    members: tuple[MeasuredMember, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of results.json; `read_results` is the inverse."""
        rows = [asdict(member) for member in self.members]
        for row in rows:
            del row["folder"]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        config = json.loads(configs.to_json(self.config))
        return {"schema": SCHEMA} | values | {"config": config, "members": rows}


def in_order(members: Iterable[MeasuredMember]) -> tuple[MeasuredMember, ...]:
    """Returns members in order of z_dim, KL weight, learning rate and seed."""
    return tuple(sorted(members, key=lambda m: (m.z_dim, m.kl_weight, m.learning_rate, m.seed)))


# Reading and merging.

NUMBER, FIGURE = "a number", "a number or null"
FIGURES_SCHEMA: dict[str, Any] = {
    "test": {str: FIGURE}, "validation": {str: FIGURE}, "kl_per_dimension": [NUMBER],
}  # fmt: skip
MEMBER_SCHEMA: dict[str, Any] = FIGURES_SCHEMA | {
    "name": str, "z_dim": int, "kl_weight": NUMBER, "learning_rate": NUMBER, "seed": int,
    "status": str, "reason": str, "step": int, "seconds": NUMBER, "config_digest": str,
    "curves": {str: {str: [FIGURE]}},
}  # fmt: skip
RESULTS_SCHEMA: dict[str, Any] = {
    "schema": int, "workdirs": [str], "config": dict, "images": {str: int}, "facts": {str: str},
    "seconds": {"training": NUMBER, "measuring": NUMBER}, "differences": {str: str},
    "members": [MEMBER_SCHEMA],
}  # fmt: skip


def checked(value: Any, schema: Any, where: str) -> Any:
    """Returns a JSON value that matches a schema.

    Args:
        value: The value.
        schema: A type; `NUMBER` or `FIGURE`; `[schema]` for a list; `{str: schema}` for any names,
            or `{name: schema, ...}` for exactly these.
        where: Name of the value in errors.

    Raises:
        UserError: The value does not match; names the place.
    """
    if isinstance(schema, list):
        for i, item in enumerate(checked(value, list, where)):
            checked(item, schema[0], f"{where}[{i}]")
    elif isinstance(schema, dict):
        names = checked(value, dict, where).keys()
        wanted = dict.fromkeys(names, schema[str]) if str in schema else schema
        if names != wanted.keys():
            odd = ", ".join(sorted(names ^ wanted.keys())[:3])
            raise UserError(f"{where} has missing or unknown entries: {odd}")
        for name, inner in wanted.items():
            checked(value[name], inner, f"{where}.{name}")
    elif schema in (NUMBER, FIGURE):
        number = type(value) in (int, float) and abs(value) < float("inf")
        if not number and (value is not None or schema == NUMBER):
            raise UserError(f"{where} is not {schema}")
    elif not isinstance(value, schema) or isinstance(value, bool):
        raise UserError(f"{where} is not of type {schema.__name__}")
    return value


def read_results(workdir: str | Path) -> MeasuredSweep:
    """Reads the results of a sweep, or of a plane, which may come from elsewhere.

    Args:
        workdir: Folder of the sweep, or of the run that is told its KL weight or latent size.

    Raises:
        UserError: There are no results, or they are not what this version writes.
    """
    path = Path(workdir) / STUDY / RESULTS
    if not path.is_file() and (Path(workdir) / PLANE / RESULTS).is_file():
        path = Path(workdir) / PLANE / RESULTS
    if not path.is_file():
        raise UserError(
            f"{str(workdir)!r} has no {STUDY}/{RESULTS}; run experiments.ablation there first"
        )
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} is larger than {LARGEST_FILE >> 20} MiB: no results of a sweep")
    again = "run experiments.ablation again to renew it"
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))["results"]
        numbers = numbers.get("cells", numbers)
        if numbers["schema"] != SCHEMA:
            raise ValueError("its format is another")
        checked(numbers, RESULTS_SCHEMA, "results")
        config = configs.from_json(json.dumps(numbers["config"]))
        configs.validate(config)
        members = tuple(_read_member(row, Path(workdir)) for row in numbers["members"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path} does not hold the results of a sweep ({reason}); {again}"
        ) from None
    rest = {name: numbers[name] for name in ("images", "facts", "seconds", "differences")}
    if not members or len(members) > MOST_MEMBERS:
        raise UserError(f"{path} has {len(members)} members, but 1 to {MOST_MEMBERS} are shown")
    return MeasuredSweep((str(workdir),), config, **rest, members=members)


def _read_member(row: dict[str, Any], workdir: Path) -> MeasuredMember:
    # The name is part of the path of the member's pictures, which must not leave the folder.
    if row["name"] in ("", ".", "..") or Path(row["name"]).name != row["name"]:
        raise UserError(f"member name {row['name']!r} is not the name of a folder")
    for name, curve in row["curves"].items():
        lengths = {len(values) for values in curve.values()}
        if curve.keys() != {"epoch", *CURVES} or len(lengths) != 1:
            raise UserError(f"curves of {row['name']} on {name!r} are incomplete")
    return MeasuredMember(**row, folder=workdir / "members" / row["name"])


def merge_results(results: Sequence[MeasuredSweep]) -> list[MeasuredSweep]:
    """Merges sweeps whose configs agree in all but what is swept.

    Args:
        results: Results of sweeps.

    Returns:
        Merged results in the order given; of members with one name the last one is kept.
    """
    merged: dict[str, MeasuredSweep] = {}
    for result in results:
        key = _common_config(result.config)
        if key not in merged:
            merged[key] = result
            continue
        first = merged[key]
        members = {member.name: member for member in (*first.members, *result.members)}
        merged[key] = replace(
            first,
            workdirs=(*first.workdirs, *result.workdirs),
            seconds={name: first.seconds[name] + result.seconds[name] for name in first.seconds},
            members=in_order(members.values()),
        )
    return list(merged.values())


def _common_config(config: ConfigDict) -> str:
    flat = configs.flatten(config)
    swept = ("seed", "data.path", "loss.kl_weight", "model.z_dim", "optimizer.learning_rate")
    rest = {k: v for k, v in flat.items() if k not in swept and not k.startswith("sweep.")}
    return json.dumps(rest, sort_keys=True)


def results_csv(result: MeasuredSweep) -> bytes:
    """Returns a CSV table with one row per member: its figures on test and on validation."""
    tables = []
    for member in result.members:
        row = asdict(member)
        for name in ("curves", "kl_per_dimension", "folder", "test", "validation"):
            del row[name]
        row |= {f"test_{name}": value for name, value in member.test.items()}
        row |= {f"validation_{name}": value for name, value in member.validation.items()}
        tables.append(row)
    columns = list(dict.fromkeys(name for row in tables for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables)
    return text.getvalue().encode()

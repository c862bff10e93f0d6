"""An explorer of a latent space: one HTML file that contains a decoder and runs it in the browser.

The file is opened from disk and loads nothing. Its parts are beside this module: `explorer.html`,
`explorer.css`, and, in the order in which they are read, `draws.js` (JAX's random points),
`product.js` (matrix products), `decoder.js`, `priors.js`, `geometry.js` and `page.js`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from markupsafe import Markup

from vae_jax.files import json_bytes, write_file
from vae_jax.metrics import posterior
from vae_jax.metrics.attribute_directions import attribute_vectors, halves, label_table, separation
from vae_jax.models.told import Pair
from vae_jax.models.vae import VAE, at_pair
from vae_jax.priors.fitted import TITLES, Prior, fit_to_run
from vae_jax.priors.kept import kept_names, open_prior
from vae_jax.priors.learned import BLOCKS, FREQUENCIES, ODE_STEPS, WIDTH, Learned
from vae_jax.report.page import templates
from vae_jax.run import Run, decode, prior_latents
from vae_jax.studies.explorer.network import Network, plain_network
from vae_jax.subject import Subject, chosen_images, encode_subject, open_subject
from vae_jax.types import UserError

PRINCIPAL = 16  # directions with a slider
SHELF_IMAGES = 8
CHECKED_POINTS = 64  # whose images before and after rounding are compared
PRIOR_BYTES = 1_100_000  # of all kept priors together
SCRIPTS = ("draws", "product", "decoder", "priors", "geometry", "page")
DIGITS = 6  # of the numbers beside the weights
_TEMPLATES = templates("vae_jax.studies.explorer")


@dataclass(frozen=True)
class Options:
    """Which images are encoded to find the directions of the codes.

    Attributes:
        split: 'test' or 'train'.
        count: Number of images, at most; 0 for all.
        seed: Seed of the images on the shelf, and of the points that check the rounding.
    """

    split: str = "test"
    count: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """The contents of the page.

    Attributes:
        title: Title of the page, with the name of the run.
        facts: Checkpoint, split and seed.
        network: The decoder.
        space: The codes and their directions, as plain data: `z_dim`, `image_shape`; `offset` and
            `deviations` `[Z]` of the aggregate posterior; `principal` and `attributes`, each a list
            of `name`, `hint` and `direction` `[Z]`, one deviation long; `components` with `kl` in
            nats and `active`; `codes` of images; `priors` to draw from besides N(0, I), see
            `plain_prior`; `condition`, the labels of a conditional model; and for a told model
            `told`, see `told_by_slider`.
        rounding: Largest change of a pixel, in steps of 1/255, due to float16 weights, in images of
            `CHECKED_POINTS` points of N(0, I).
    """

    title: str
    facts: dict[str, str]
    network: Network = field(repr=False)
    space: dict[str, Any] = field(repr=False)
    rounding: float


def measure(run: Run[VAE], options: Options, plane: Run[VAE] | None = None) -> Result:
    """Collects the decoder and the directions of the codes of a run's images.

    Args:
        run: A run with encoder and decoder.
        options: Which images to encode.
        plane: If the model is told KL weight or latent size, the run for all pairs, of which `run`
            is one: the page then contains the decoder for all pairs, and directions of one pair.

    Raises:
        UserError: A decoder that does not fit a page, fewer than two images, or codes that are not
            finite.
    """
    whole = run if plane is None else plane
    network = plain_network(whole.model, whole.variables, len(run.label_names))
    subject = open_subject(run, options.split, options.count)
    seen = encode_subject(subject)
    moments = posterior.moments(seen.mean, seen.log_var)
    chosen = chosen_images(SHELF_IMAGES, len(seen.mean), options.seed)
    kl = posterior.kl_per_dimension(seen.mean, seen.log_var)
    priors, left_out = _priors(run, options.count)
    space = {
        "z_dim": run.model.z_dim,
        "image_shape": run.model.image_shape,
        "offset": moments.offset,
        "deviations": np.sqrt(np.diag(moments.covariance)),
        "principal": _principal(moments),
        "attributes": _attributes(subject, seen.mean, moments.covariance, options.seed),
        "components": {"kl": kl, "active": posterior.active_units(seen.mean)},
        "codes": [
            {
                "name": f"{options.split.capitalize()} image {i}",
                "z": seen.mean[i],
                "labels": _labels(subject, i),
            }
            for i in chosen.tolist()
        ],
        "priors": priors,
        "condition": {"kind": run.config.data.condition, "names": run.label_names},
    }
    facts = run.provenance | {
        "split": options.split,
        "images": f"{len(seen.mean):,}",
        "seed": str(options.seed),
    }
    if left_out:
        facts["priors that this page leaves out"] = "; ".join(left_out)
    title = f"The latent space of {run.workdir.resolve().name}"
    if run.pair is not None:
        space = _padded(space, whole.model.z_dim) | {"told": told_by_slider(whole.model, run.pair)}
    return Result(title, facts, network, space, _rounding(run, network, subject, options.seed))


def _principal(moments: posterior.Moments) -> list[dict[str, Any]]:
    """Returns the principal directions of the aggregate posterior, longest first."""
    values, vectors = np.linalg.eigh(moments.covariance)
    return [
        {
            "name": f"Direction {rank}",
            "hint": f"variance {value:.2f}",
            "direction": np.sqrt(value) * vector,
        }
        for rank, (value, vector) in enumerate(
            zip(values[::-1][:PRINCIPAL], vectors.T[::-1], strict=False), 1
        )
    ]


def _attributes(
    subject: Subject, mean: np.ndarray, covariance: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Returns the directions of attributes, those that separate images best first."""
    table, names = label_table(subject.split.labels, subject.split.label_names)
    if not names or len(mean) < 4:
        return []
    prefix = "Class " if subject.split.labels is not None and subject.split.labels.ndim == 1 else ""
    fit, judge = halves(len(mean), seed)
    shares = separation((mean[fit], table[fit]), (mean[judge], table[judge])).shares
    found = []
    for i in np.argsort(-np.nan_to_num(shares)).tolist():
        vector = attribute_vectors(mean, table[:, [i]])[0]
        unit = vector / max(float(np.linalg.norm(vector)), np.finfo(float).tiny)
        hint = (
            "too few images to judge"
            if np.isnan(shares[i])
            else f"tells {100 * shares[i]:.0f} % apart"
        )
        found.append(
            {
                "name": prefix + names[i].replace("_", " "),
                "hint": hint,
                "direction": np.sqrt(unit @ covariance @ unit) * unit,
            }
        )
    return found


def _priors(run: Run[VAE], count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the priors of the run, with a new Gaussian if it has none; and which are left out."""
    priors, left_out, room = [], [], PRIOR_BYTES
    for name in kept_names(run):
        try:
            prior = open_prior(run, name)
        except UserError as error:
            left_out.append(f"{name} ({error})")
            continue
        found = plain_prior(
            prior, f"the prior {name}" + f" (a {TITLES[prior.kind]})" * (name != prior.kind)
        )
        size = len(inside_html(found))
        if size > room:
            left_out.append(f"{name} (its {size:,} bytes are too many)")
            continue
        room -= size
        priors.append(found)
    if not any(one["kind"] == "gaussian" for one in priors):
        own = fit_to_run(run, "gaussian", count=count)
        priors.insert(0, plain_prior(own, "a Gaussian fitted for this page"))
    return priors, left_out


def plain_prior(prior: Prior, title: str) -> dict[str, Any]:
    """Returns a prior as plain data.

    `location` is that of the prior, `[1 + L, Z]`; each of `components` has a `log_weight`, a `mean`
    `[Z]` about the location, and the rows of a lower triangle, `cholesky`. A learned prior has one
    component, by which its points were whitened, and a `network`.
    """
    density, more = prior.density, {}
    if isinstance(density, Learned):
        density, more = density.white, _network(prior.kind, density)
    arrays = [np.asarray(array) for array in density]
    parts = zip(*arrays, strict=True) if prior.kind == "mixture" else [(0.0, *arrays)]
    components = [
        {
            "log_weight": log_weight,
            "mean": mean,
            "cholesky": [row[: i + 1] for i, row in enumerate(triangle)],
        }
        for log_weight, mean, triangle in parts
    ]
    return {
        "title": title,
        "kind": prior.kind,
        "location": prior.location,
        "components": components,
    } | more


def _network(kind: str, density: Learned) -> dict[str, Any]:
    """Returns the network of a learned prior, its arrays in order of layers, float16 in base64."""
    params, z_dim = density.params, len(density.white.mean)
    if kind == "flow":
        body, last, inputs = params["Body_0"], params["Dense_0"], z_dim + 2 * FREQUENCIES
        more = {"frequencies": FREQUENCIES, "steps": ODE_STEPS}
    else:
        body, last, inputs = params["decoder"], params["mean"], z_dim
        more = {"deviation": math.exp(params["log_var"] / 2)}
    layers = [body["Dense_0"]]
    for i in range(BLOCKS):
        layers += [body[f"LayerNorm_{i}"], body[f"Dense_{i + 1}"]]
    arrays = [
        layer[name]
        for layer in [*layers, last]
        for name in ("scale", "kernel", "bias")
        if name in layer
    ]
    network = {
        "inputs": inputs,
        "width": WIDTH,
        "blocks": BLOCKS,
        "outputs": z_dim,
        "weights": base64.b64encode(b"".join(a.astype("<f2").tobytes() for a in arrays)).decode(),
    }
    return {"network": network} | more


def _padded(space: dict[str, Any], z_dim: int) -> dict[str, Any]:
    """Adds the dimensions that a pair leaves out: codes do not vary in them, random points do."""
    more = z_dim - space["z_dim"]

    def longer(vector: Any) -> np.ndarray:
        return np.pad(vector, (0, more))

    ways = {
        name: [one | {"direction": longer(one["direction"])} for one in space[name]]
        for name in ("principal", "attributes")
    }
    return (
        space
        | ways
        | {
            "z_dim": z_dim,
            "offset": longer(space["offset"]),
            "deviations": np.pad(space["deviations"], (0, more), constant_values=1),
            "components": {name: longer(each) for name, each in space["components"].items()},
            "codes": [one | {"z": longer(one["z"])} for one in space["codes"]],
        }
    )


def told_by_slider(model: VAE, pair: Pair) -> dict[str, Any]:
    """Returns the pair, the ranges of the sliders, and the code that tells the model a pair.

    `code` has, for each latent size and each of the T numbers of the code, the coefficients of a
    parabola in log w: for one size, the numbers are polynomials of log beta of degree 2 at most.
    """
    told = model.told
    assert told is not None
    weights, code = jnp.exp(jnp.array([-1.0, 0.0, 1.0])), {}
    for size in {*told.z_dim, int(pair.z_dim)}:
        numbers = told.code(Pair(weights, jnp.full(3, size, jnp.float32)))
        below, none, above = np.asarray(numbers, np.float64)
        code[str(size)] = np.stack([none, (above - below) / 2, (above + below) / 2 - none], axis=1)
    return {"kl_weight": told.kl_weight, "z_dim": told.z_dim, "pair": pair, "code": code}


def _labels(subject: Subject, image: int) -> list[float]:
    return [] if subject.labels is None else subject.labels[image].tolist()


def _rounding(run: Run[VAE], network: Network, subject: Subject, seed: int) -> float:
    z = prior_latents(seed, CHECKED_POINTS, run.model.z_dim)
    labels = None
    if subject.labels is not None:
        labels = subject.labels[np.arange(CHECKED_POINTS) % len(subject.labels)]
    exact = decode(run.model, run.variables, z, labels)
    model, variables = network.model, network.variables
    if run.pair is not None:
        model, variables = at_pair(model, variables, run.pair)
    rounded = decode(model, variables, z, labels)
    return float(255 * np.abs(exact - rounded).max())


def lead(result: Result) -> str:
    """Returns a paragraph on what the page contains and shows."""
    space = result.space
    active = int(np.sum(space["components"]["active"]))
    height, width, _ = space["image_shape"]
    return (
        f"This page contains the decoder of a variational autoencoder, which draws a "
        f"{width}x{height} image from {space['z_dim']} numbers in your browser. Drag across the "
        f"image or move a slider to see what the numbers mean. {result.facts['images']} images of "
        f"the {result.facts['split']} split were encoded to find the directions: {active} of the "
        f"{space['z_dim']} numbers are in use, and carry "
        f"{float(np.sum(space['components']['kl'])):.1f} nats per image."
    )


def write_explorer(path: str | Path, result: Result, command: str = "") -> Path:
    """Writes the page, all or nothing.

    Args:
        path: Path of the file.
        result: The result of `measure`.
        command: The command that makes the page again.

    Raises:
        UserError: The file cannot be written.
    """
    facts = result.facts | {
        "weights": f"{len(result.network.weights) // 2:,} float16 numbers, which change a pixel by "
        f"at most {result.rounding:.2f}/255 in {CHECKED_POINTS} images"
    }
    html = _TEMPLATES.get_template("explorer.html").render(
        title=result.title,
        lead=lead(result),
        facts=facts,
        command=command,
        style=Markup(_source("explorer.css")),
        script=Markup("\n".join(_source(f"{name}.js") for name in SCRIPTS)),
        model=Markup(inside_html({"layers": result.network.layers} | result.space)),
        weights=Markup(base64.b64encode(result.network.weights).decode()),
    )
    return write_file(path, html.encode())


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def inside_html(value: Any) -> str:
    """Returns JSON with rounded numbers that cannot end the HTML element around it."""
    plain = json.loads(
        json_bytes(value), parse_float=lambda text: float(f"{float(text):.{DIGITS}g}")
    )
    return json.dumps(plain, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

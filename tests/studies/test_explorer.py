"""The explorer's page: its JavaScript computes what JAX computes, and moves what it says.

Node runs the page's own sources without a browser; a browser, where there is one, runs the page.
"""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from told_models import told_config

from configs import faces, tiny
from vae_jax.config import what_is_told
from vae_jax.data.latents import read_latents
from vae_jax.metrics.densities import normal
from vae_jax.metrics.latent_paths import linear, spherical
from vae_jax.models.told import Pair
from vae_jax.models.vae import at_pair, make_vae
from vae_jax.priors import learned
from vae_jax.priors.fitted import KINDS, Codes, fit_prior, fit_to_run
from vae_jax.priors.fitted import draw as draw_points
from vae_jax.priors.kept import keep_prior
from vae_jax.run import decode, network_shapes, open_plane, open_run, prior_latents, run_at
from vae_jax.streams import make_key
from vae_jax.studies.explorer import explorer, network
from vae_jax.studies.explorer.network import plain_network
from vae_jax.train.trainer import fit
from vae_jax.types import UserError

SOURCES = Path(explorer.__file__).parent
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
LEVEL = 1 / 255

# What a test asks of the sources in Node; reads JSON and writes JSON.
DECODE = """
const { networks } = input;
return networks.map(({ layers, weights, points, code }) => {
  const decoder = new Decoder(layers, readWeights(weights));
  decoder.tell(code);
  const images = () => points.map((point) => Array.from(decoder.decode(Float32Array.from(point))));
  const fast = images();
  decoder.product = plainProduct(decoder.memory);
  const compiled = String(makeProduct(decoder.memory)).includes("native");
  return { fast, plain: images(), compiled };
});
"""
DRAW = "return input.map(([seed, index, zDim]) => Array.from(priorPoint(seed, index, zDim)));"
WAYS = """
const { from, to, shares } = input;
return [straight, spherical].map((way) => shares.map((t) => way(from, to, t)));
"""


def in_node(body, value):
    """What JavaScript returns that sees the page's functions, and `value` as `input`."""
    names = [name for name in explorer.SCRIPTS if name != "page"]
    text = "\n".join((SOURCES / f"{name}.js").read_text() for name in names)
    program = f"""{text}
        const input = JSON.parse(require("fs").readFileSync(0));
        console.log(JSON.stringify((() => {{ {body} }})()));"""
    done = subprocess.run(
        [NODE, "-e", program], input=json.dumps(value), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Images of 13x18 pixels lead through odd sizes, strides of 3 and kernels smaller than a stride.
ODD = {
    "encoder.filters": (6, 5),
    "encoder.kernel_sizes": (4, 3),
    "encoder.strides": (3, 1),
    "encoder.padding": ("valid", "valid"),
    "decoder.filters": (5,),
    "decoder.kernel_sizes": (3, 4),
    "decoder.strides": (1, 3),
    "decoder.padding": ("valid", "valid"),
}
VARIANTS = {
    "batch norm, leaky ReLU": ((16, 16, 3), 0, {}),
    "no norm, SELU, grey": ((16, 16, 1), 0, {"norm": "none", "activation": "selu"}),
    "valid padding, ReLU": ((13, 19, 3), 0, ODD | {"activation": "relu", "conv_bias": True}),
    "labels, tanh, activated dense": (
        (16, 16, 1),
        3,
        {"activation": "tanh", "decoder_dense_activation": "relu"},
    ),
    "kernels below the stride": ((16, 16, 3), 0, {"decoder.kernel_sizes": (1, 5)}),
}


def made(shape, label_dim, fields, seed=0, told=None):
    """A model with parameters and statistics as after some training, points and labels."""
    config = tiny.get_config().model
    config.update_from_flattened_dict(fields)
    model = make_vae(config, shape, told)
    shapes = network_shapes(model, label_dim)["decoder"]
    rng = np.random.default_rng(seed)
    items = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape).astype("f4"), shapes)
    for layer in items["batch_stats"].values():
        layer["norm"]["var"] = rng.uniform(0.01, 2, layer["norm"]["var"].shape).astype("f4")
    variables = {kind: {"decoder": tree} for kind, tree in items.items()}
    z = rng.normal(size=(4, model.z_dim)).astype("f4")
    labels = rng.integers(0, 2, (4, label_dim)).astype("f4") if label_dim else None
    return model, variables, z, labels


@pytest.fixture(scope="module")
def decoded():
    """By variant: images of the model, of its float16 network, and of the page."""
    asked, wanted = [], []
    for shape, label_dim, fields in VARIANTS.values():
        model, variables, z, labels = made(shape, label_dim, fields)
        plain = plain_network(model, variables, label_dim)
        points = z if labels is None else np.concatenate([z, labels], axis=1)
        asked.append(
            {
                "layers": plain.layers,
                "weights": base64.b64encode(plain.weights).decode(),
                "points": points.tolist(),
                "code": [],
            }
        )
        networks = ((model, variables), (plain.model, plain.variables))
        wanted.append([decode(*one, z, labels) for one in networks])
    found = in_node(DECODE, {"networks": asked})
    return dict(zip(VARIANTS, zip(wanted, found, strict=True), strict=True))


@needs_node
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_decodes_what_the_model_decodes(decoded, variant):
    (exact, rounded), found = decoded[variant]
    fast, plain = (np.reshape(found[kind], exact.shape) for kind in ("fast", "plain"))
    assert found["compiled"]  # matrix products ran in WebAssembly
    np.testing.assert_allclose(fast, rounded, atol=2e-6)
    np.testing.assert_allclose(plain, rounded, atol=2e-6)
    assert np.abs(fast - exact).max() <= LEVEL
    assert np.ptp(exact) > 0.3  # images that could tell a mistake


@needs_node
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_told_model_answers_for_every_pair(norm):
    config = told_config(**{"model.norm": norm})
    told = what_is_told(config)
    model, variables, z, _ = made((16, 16, 3), 0, {"norm": norm}, told=told)
    plain = plain_network(model, variables, 0)
    page = explorer.told_by_slider(model, Pair(3.0, 4))
    asked, wanted = [], []
    for pair in (Pair(0.1, 4), Pair(3.0, 2), Pair(10.0, 1)):
        used = z[:, : pair.z_dim]
        asked.append(
            {
                "layers": plain.layers,
                "weights": base64.b64encode(plain.weights).decode(),
                "points": np.pad(used, ((0, 0), (0, 4 - pair.z_dim))).tolist(),
                "code": (
                    page["code"][str(pair.z_dim)] @ np.log(pair.kl_weight) ** np.arange(3)
                ).tolist(),
            }
        )
        wanted.append(decode(*at_pair(model, variables, pair), used))
    for found, images in zip(in_node(DECODE, {"networks": asked}), wanted, strict=True):
        assert np.abs(np.reshape(found["fast"], images.shape) - images).max() <= LEVEL
    assert np.abs(wanted[0] - wanted[1]).max() > 10 * LEVEL


# Tests compile without optimisation (tests/conftest.py), where float32 rounds otherwise.
OPTIMISED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


@needs_node
def test_points_are_those_of_the_command_line_bit_for_bit():
    asked, wanted = [], []
    for seed, count, z_dim in ((0, 3, 64), (33, 300, 64), (2**32 - 1, 5, 7), (12345, 20, 200)):
        draw = jax.jit(lambda key, n=count, z=z_dim: normal(key, n, z), compiler_options=OPTIMISED)
        asked += [(seed, i, z_dim) for i in range(count)]
        wanted += list(np.asarray(draw(make_key(seed))))
    found = in_node(DRAW, asked)
    unequal = [
        place
        for place, one, other in zip(asked, found, wanted, strict=True)
        if np.float32(one).tobytes() != other.tobytes()
    ]
    assert unequal == []


FITTED = """
const { law, seed, labels, zDim } = input;
return labels.map((label, i) => Array.from(fittedPoint(law, seed, i, label, zDim)));
"""


@needs_node
@pytest.mark.parametrize("kind", KINDS)
def test_fitted_points_are_those_of_the_prior(kind, monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 2)
    monkeypatch.setattr(learned, "EVERY", 2)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 2)).astype("f4")
    apart = 8 * rng.integers(-1, 2, (200, 1))  # clusters, of which a mixture takes several
    z = apart + rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + labels @ np.ones((2, 3))
    prior = fit_prior(kind, Codes(z.astype("f4"), labels), None, seed=0)
    if kind in ("two_stage", "flow"):  # weights as large as after a long training, of float16
        params = jax.tree.map(
            lambda leaf: (leaf + 0.05 * rng.normal(size=leaf.shape)).astype("f2").astype("f4"),
            prior.density.params,
        )
        prior = replace(prior, density=prior.density._replace(params=params))
    wanted = draw_points(prior, seed=7, count=40, labels=labels[:40])
    law = json.loads(explorer.inside_html(explorer.plain_prior(prior, kind)))
    assert (len(law["components"]) > 1) == (kind == "mixture")
    asked = {"law": law, "seed": 7, "labels": labels[:40].tolist(), "zDim": 5}
    found = np.array(in_node(FITTED, asked))
    np.testing.assert_allclose(found[:, :3], wanted, rtol=1e-4, atol=1e-4)
    # Dimensions of a told model that the prior leaves out follow N(0, I).
    np.testing.assert_allclose(found[:, 3:], prior_latents(7, 40, 5)[:, 3:], rtol=1e-6)


@needs_node
def test_ways_are_those_of_the_paths():
    from_, to = np.random.default_rng(1).normal(size=(2, 9))
    shares = np.linspace(0, 1, 7)
    ends = {"from": from_.tolist(), "to": to.tolist(), "shares": shares.tolist()}
    for found, way in zip(in_node(WAYS, ends), (linear, spherical), strict=True):
        np.testing.assert_allclose(found, way(from_, to, len(shares)), atol=1e-12)


def test_what_no_page_can_hold_is_refused(monkeypatch):
    model, variables, _, _ = made((16, 16, 3), 0, {})
    for value in (np.nan, np.inf, 1e6):
        broken = jax.tree.map(np.copy, variables)
        broken["params"]["decoder"]["conv_1"]["kernel"][0, 0, 0, 0] = value
        with pytest.raises(UserError, match="decoder's layer conv_1 holds weights"):
            plain_network(model, broken, 0)
    monkeypatch.setattr(network, "MAX_WEIGHTS", 1000)
    with pytest.raises(UserError, match="a page holds at most 1,000; explore a smaller model"):
        plain_network(model, variables, 0)


def test_the_main_jobs_page_is_small():
    config = faces.get_config()
    shapes = network_shapes(make_vae(config.model, config.data.image_shape), 0)["decoder"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    sources = sum(path.stat().st_size for path in SOURCES.iterdir() if path.suffix in LINES)
    # The rest of 3 MB is for directions.
    assert 2 * count * 4 / 3 + sources + explorer.PRIOR_BYTES < 2_920_000


LINES = (".js", ".html", ".css")


def test_the_sources_are_short():
    lines = [len(path.read_text().splitlines()) for path in SOURCES.glob("*.js")]
    assert sum(lines) < 1000


@pytest.fixture(scope="module")
def explored(tmp_path_factory, tiny_store):
    """A model that was trained for an epoch on images with three attributes."""
    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.train.epochs = 1
    workdir = tmp_path_factory.mktemp("explored") / "a<b>"
    fit(config, workdir, lambda _: None)
    return open_run(workdir)


@pytest.fixture(scope="module")
def result(explored):
    return explorer.measure(explored, explorer.Options())


def test_directions_are_one_deviation_of_the_codes(result):
    space = result.space
    principal = np.array([one["direction"] for one in space["principal"]])
    assert principal.shape == (4, 4)
    # All axes together give the covariance back: their squares add up to the variances.
    np.testing.assert_allclose((principal**2).sum(axis=0), np.square(space["deviations"]))
    lengths = np.linalg.norm(principal, axis=1)
    assert (np.diff(lengths) <= 0).all()
    covariance = principal.T @ principal
    assert {one["name"] for one in space["attributes"]} <= {"Red", "Green", "Blue"}
    for one in space["attributes"]:
        unit = one["direction"] / np.linalg.norm(one["direction"])
        np.testing.assert_allclose(
            np.linalg.norm(one["direction"]), np.sqrt(unit @ covariance @ unit)
        )
    assert len(space["codes"]) == explorer.SHELF_IMAGES and result.rounding < 1


def test_the_page_offers_the_priors_that_the_run_keeps(explored, result, monkeypatch):
    (own,) = result.space["priors"]
    assert own["title"] == "a Gaussian fitted for this page"
    monkeypatch.setattr(learned, "STEPS", 1)
    monkeypatch.setattr(learned, "EVERY", 1)
    for kind, name in (("gaussian", "gaussian"), ("mixture", "blobs"), ("flow", "flow")):
        keep_prior(explored, fit_to_run(explored, kind, name=name))
    (explored.workdir / "priors" / "torn.npz").write_bytes(b"PK")
    found = explorer.measure(explored, explorer.Options())
    titles = [one["title"] for one in found.space["priors"]]
    assert titles == ["the prior blobs (a mixture)", "the prior flow", "the prior gaussian"]
    told = found.facts["priors that this page leaves out"]
    assert told.startswith("torn (") and "torn.npz is damaged" in told
    monkeypatch.setattr(explorer, "PRIOR_BYTES", 10)
    found = explorer.measure(explored, explorer.Options())
    assert [one["title"] for one in found.space["priors"]] == [own["title"]]
    assert "bytes are too many" in found.facts["priors that this page leaves out"]


def test_the_page_holds_everything_and_loads_nothing(result, tmp_path):
    path = explorer.write_explorer(tmp_path / "e.html", result, "python -m <command>")
    text = path.read_text()
    assert "<title>The latent space of a&lt;b&gt;</title>" in text and "&lt;command&gt;" in text
    assert not re.findall(
        r"(?:src|href|action)=(?!\"data:,)|https?://(?!webassembly)|@import", text
    )
    assert "default-src 'none'" in text
    model = re.search(r'id="model">(.*?)</script>', text).group(1)
    assert json.loads(model)["z_dim"] == 4
    weights = re.search(r'id="weights">(.*?)</script>', text).group(1)
    assert base64.b64decode(weights) == result.network.weights


def test_names_cannot_end_the_script(result, tmp_path):
    hostile = result.space | {"condition": {"kind": "none", "names": ["</script><b>"]}}
    path = explorer.write_explorer(tmp_path / "e.html", replace(result, space=hostile))
    assert "</script><b>" not in path.read_text()


# Uses the page as a person would, and leaves what came of it in an element of its own.
USE = """
const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
const set = (input, value, kind = "input") => {
  input.value = value;
  input.dispatchEvent(new Event(kind, { bubbles: true }));
};
const sliders = (id) => [...document.querySelectorAll(`#${id} input[type=range]`)];
const press = (name) => document.querySelector(`[data-do=${name}]`).click();
const point = () => Array.from(currentPoint());
(async () => {
  const found = {};
  set(byId("seed"), 33, "change");
  set(byId("index"), 5, "change");
  await frame();
  found.drawn = point();
  found.pixels = Array.from(byId("image").getContext("2d").getImageData(0, 0, 16, 16).data);
  const [first] = sliders("principal"), [red] = sliders("attributes");
  set(first, 1.5);
  set(red, -2);
  found.moved = point();
  first.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
  found.half = point();
  red.dispatchEvent(new KeyboardEvent("keydown", { key: "Delete", bubbles: true }));
  found.back = point();
  set(sliders("components")[0], 1);
  found.component = point();
  byId("reset").click();
  byId("keep").click();
  const faces = [...byId("shelf").children];
  faces[0].click(); press("add");
  faces[1].click(); press("subtract");
  found.sum = point();
  faces[2].click(); press("show");
  faces[3].click(); press("path");
  set(byId("share"), 0.25);
  found.quarter = point();
  faces[4].click(); press("remove");
  found.shelf = byId("shelf").children.length;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "w", bubbles: true }));
  await frame();
  found.walking = byId("walk").getAttribute("aria-pressed");
  found.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.status = byId("status").textContent;
  report(found);
})();
"""


REPORT = """
function report(found) {
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = JSON.stringify(found);
  document.body.append(outcome);
}
"""


def in_browser(path, script, *flags):
    """What a script that was added to a page reports."""
    probed = path.with_stem("probed")
    probed.write_text(
        path.read_text().replace("</body>", f"<script>{REPORT}{script}</script></body>")
    )
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--no-first-run", f"--user-data-dir={path.parent / 'user'}", *flags, "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, probed.as_uri()], capture_output=True, text=True, timeout=120
    )
    outcome = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.DOTALL)
    assert outcome, done.stderr[-2000:]
    return json.loads(html.unescape(outcome.group(1)))


@pytest.mark.slow
@needs_browser
def test_a_browser_moves_what_the_sliders_say(result, tmp_path):
    path = explorer.write_explorer(tmp_path / "e.html", result)
    found = in_browser(path, USE, "--virtual-time-budget=5000")
    space = json.loads(explorer.inside_html(result.space))
    codes = np.array([one["z"] for one in space["codes"]])
    drawn = np.array(found["drawn"])
    np.testing.assert_allclose(drawn, prior_latents(33, 6, 4)[5], rtol=1e-5)
    image = decode(result.network.model, result.network.variables, drawn[None].astype("f4"))[0]
    pixels = np.reshape(found["pixels"], (16, 16, 4))
    assert np.abs(pixels[..., :3] - 255 * image).max() <= 0.51 and (pixels[..., 3] == 255).all()

    first, red = (np.array(space[k][0]["direction"]) for k in ("principal", "attributes"))
    np.testing.assert_allclose(found["moved"], drawn + 1.5 * first - 2 * red, rtol=1e-5)
    np.testing.assert_allclose(found["half"], drawn - 2 * red, rtol=1e-5)
    assert found["back"] == found["drawn"]
    strongest = int(np.argmax(space["components"]["kl"]))
    step = np.eye(4)[strongest] * space["deviations"][strongest]
    np.testing.assert_allclose(found["component"], drawn + step, rtol=1e-5)
    np.testing.assert_allclose(found["sum"], drawn + codes[0] - codes[1], rtol=1e-4, atol=1e-6)
    quarter = spherical(codes[2], codes[3], 5)[1]
    np.testing.assert_allclose(found["quarter"], quarter, rtol=1e-5)
    assert found["shelf"] == len(codes) and found["walking"] == "true"
    assert found["loaded"] == [] and "Walking" in found["status"]


# Presses the buttons that save, and leaves what a browser would have put on the disk.
SAVE = (
    USE.partition("(async")[0]
    + """
const saved = {}, blobs = new Map();
// The browser's clock jumps ahead where no timer is near; encoding takes real time.
const ticking = setInterval(() => {}, 1);
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  const url = make.call(URL, blob);
  blobs.set(url, blob);
  return url;
};
const bytesOf = async (blob) => Array.from(new Uint8Array(await blob.arrayBuffer()));
HTMLAnchorElement.prototype.click = function () { saved[this.download] = blobs.get(this.href); };
(async () => {
  showPoint(33, 5);
  await frame();
  for (const id of ["save-image", "save-latents", "save-shelf"]) byId(id).click();
  while (Object.keys(saved).length < 3) await frame();
  const found = {};
  for (const [name, blob] of Object.entries(saved)) found[name] = await bytesOf(blob);
  report(found);
  clearInterval(ticking);
})();
"""
)


@pytest.mark.slow
@needs_browser
def test_what_the_page_saves_is_what_the_command_line_takes(explored, result, tmp_path):
    path = explorer.write_explorer(tmp_path / "e.html", result)
    saved = in_browser(path, SAVE, "--virtual-time-budget=100000")
    assert set(saved) == {"image.png", "latents.json", "shelf.json"}
    for name, data in saved.items():
        (tmp_path / name).write_bytes(bytes(data))
    z = read_latents(tmp_path / "latents.json", 4)
    np.testing.assert_allclose(z, prior_latents(33, 6, 4)[5:], rtol=1e-5)
    shelf = read_latents(tmp_path / "shelf.json", 4)
    np.testing.assert_allclose(shelf, [one["z"] for one in result.space["codes"]], rtol=1e-4)

    command = ["--latents_in", tmp_path / "latents.json", "--out", tmp_path / "again.png"]
    command += ["--arrays", tmp_path / "again.npy", "--workdir", explored.workdir]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.sample", *map(str, command)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (again,) = np.load(tmp_path / "again.npy")
    picture = np.asarray(Image.open(tmp_path / "image.png").convert("RGB"))
    assert np.abs(picture - 255 * again).max() <= 1.51


TELL = (
    USE.partition("(async")[0]
    + """
const [weight, size] = sliders("told"), found = { pairs: [], pixels: [] };
showPoint(33, 5);
for (const place of [[0, 2], [0.5, 1], [1, 0]]) {
  set(weight, place[0]);
  set(size, place[1]);
  draw(byId("image"), currentPoint(), shown.labels);
  found.pairs.push({ ...pair });
  found.pixels.push(Array.from(byId("image").getContext("2d").getImageData(0, 0, 16, 16).data));
}
report(found);
"""
)


@pytest.mark.slow
@needs_browser
def test_sliders_of_a_told_model_ask_for_any_pair(tmp_path, tiny_store):
    config = told_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.train.epochs = 1
    fit(config, tmp_path / "run", lambda _: None)
    plane = open_plane(tmp_path / "run")
    begun = explorer.measure(run_at(plane, Pair(1.0, 2)), explorer.Options(), plane)
    found = in_browser(explorer.write_explorer(tmp_path / "e.html", begun), TELL)
    assert [one["z_dim"] for one in found["pairs"]] == [4, 2, 1]
    np.testing.assert_allclose([one["kl_weight"] for one in found["pairs"]], [0.1, 1, 10])
    z = prior_latents(33, 6, 4)[5:]
    for pair, pixels in zip(found["pairs"], found["pixels"], strict=True):
        run = run_at(plane, Pair(**pair))
        (image,) = decode(run.model, run.variables, z[:, : pair["z_dim"]])
        shown = np.reshape(pixels, (16, 16, 4))[..., :3]
        assert np.abs(shown - 255 * image).max() <= 1.01


TIME = """
const times = Array.from({ length: 60 }, (_, i) => {
  const z = priorPoint(0, i, model.z_dim), start = performance.now();
  draw(byId("image"), z, []);
  return performance.now() - start;
});
report(times);
"""


@pytest.mark.slow
@needs_browser
def test_a_browser_decodes_thirty_faces_a_second(result, tmp_path):
    config = faces.get_config()
    model = make_vae(config.model, config.data.image_shape)
    shapes = network_shapes(model, 0)["decoder"]
    variables = {
        kind: {"decoder": jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, "f4"), tree)}
        for kind, tree in shapes.items()
    }
    z_dim = config.model.z_dim
    space = result.space | {
        "image_shape": config.data.image_shape,
        "z_dim": z_dim,
        "offset": np.zeros(z_dim),
        "codes": [{"name": "one", "z": np.zeros(z_dim), "labels": []}],
    }
    large = replace(result, network=plain_network(model, variables, 0), space=space)
    times = in_browser(explorer.write_explorer(tmp_path / "e.html", large), TIME)
    print(f"{1000 / np.median(times):.0f} images/s")
    assert np.median(times) < 1000 / 30

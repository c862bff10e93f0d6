"""What is measured of each member of a sweep, and what is read back from elsewhere."""

import csv
import io
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import classifier_faces
from vae_jax.data.splits import open_splits
from vae_jax.losses import gaussian_kl_per_dimension
from vae_jax.priors.fitted import codes_of, draw, fit_prior
from vae_jax.report.page import Page, write_study
from vae_jax.run import decode, encode, open_run, prior_latents
from vae_jax.studies import ablation, sweep_measurement
from vae_jax.studies.sweep_measurement import Options, chosen_rows, measure, set_figures
from vae_jax.studies.sweep_results import FIGURE, checked, read_results, results_csv
from vae_jax.train.sweep import Outcome, fit_sweep
from vae_jax.train.trainer import fit
from vae_jax.types import UserError

NO_SPACES = {}


def silent(text):
    pass


@pytest.fixture(scope="module")
def swept(tiny_store, tmp_path_factory):
    """Two KL weights with two seeds, trained for two epochs, and measured."""
    from configs import tiny

    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.sweep = ConfigDict(
        {"kl_weight": (0.5, 3.0), "z_dim": (), "learning_rate": (), "seed": (0, 1), "mode": "grid",
         "schedule": "in_turn", "same_batches": True, "memory_gib": 0.0}
    )  # fmt: skip
    workdir = tmp_path_factory.mktemp("sweep")
    trained = fit_sweep(config, workdir, silent)
    result = measure(config, workdir, trained, open_splits(config.data), Options(), silent)
    write_study(workdir / "ablation", Page("A sweep", "", []), ablation.numbers([result]))
    return config, workdir, trained, result


def test_figures_agree_with_the_model(swept):
    config, workdir, _, result = swept
    assert [(m.kl_weight, m.seed) for m in result.members] == [(0.5, 0), (0.5, 1), (3, 0), (3, 1)]
    first = result.members[0]
    test, images = first.test, open_splits(config.data).test.take(np.arange(11))
    run = open_run(workdir / "members" / first.name)
    mean, log_var = encode(run.model, run.variables, images)
    assert test["beta"] == 1.5 and first.z_dim == 4
    kl = gaussian_kl_per_dimension(mean, log_var).sum(-1).mean()
    assert test["kl"] == pytest.approx(float(kl), rel=1e-5)
    assert sum(first.kl_per_dimension) == pytest.approx(test["kl"], rel=1e-5)
    assert test["elbo"] == pytest.approx(-test["recon"] - test["kl"])
    error = np.square(images / 255.0 - decode(run.model, run.variables, mean)).mean(axis=(1, 2, 3))
    assert test["psnr"] == pytest.approx(float(np.mean(-10 * np.log10(error))), abs=1e-4)
    assert test["active_units"] == int((mean.var(axis=0, ddof=1) > 0.01).sum())
    assert 0 < test["sliced_wasserstein_floor"] < test["sliced_wasserstein"]
    assert test["pixels_frechet_floor"] < test["pixels_frechet"]
    assert test["radius_prior_mean"] == pytest.approx(1.88, abs=0.01)
    assert 1 <= test["effective_dimensions"] <= 4
    assert (first.folder / "samples.png").is_file()
    assert (first.folder / "reconstructions.png").is_file()


def test_points_and_images_are_those_of_the_members_own_seed(swept):
    config, workdir, _, result = swept
    for member in result.members[:2]:
        run = open_run(workdir / "members" / member.name)
        split = open_splits(config.data).test
        rows = np.sort(np.random.default_rng(member.seed).permutation(11)[:8])
        points = prior_latents(member.seed, 8, 4)
        samples = decode(run.model, run.variables, points)
        again = set_figures(split.take(rows), samples, member.seed, NO_SPACES)
        assert again["sliced_wasserstein"] == pytest.approx(
            member.test["sliced_wasserstein"], rel=1e-5
        )
    floors = [m.test["sliced_wasserstein_floor"] for m in result.members]
    assert floors[0] == floors[2] and floors[1] == floors[3] and floors[0] != floors[1]
    assert set(chosen_rows(split, 8, 0)) != set(chosen_rows(split, 8, 1))


def test_samples_of_a_fitted_gaussian_are_judged_as_those_of_the_prior(swept):
    config, workdir, _, result = swept
    member, splits = result.members[1], open_splits(config.data)
    run = open_run(member.folder)
    codes = codes_of(run, splits.train, member.seed)
    prior = fit_prior("gaussian", codes, None, member.seed)
    images = splits.test.take(chosen_rows(splits.test, 8, member.seed))
    rows = chosen_rows(splits.train, 8, member.seed)
    sources = {"gaussian": draw(prior, member.seed, 8), "codes": codes.z[rows]}
    for name, z in sources.items():
        found = set_figures(images, decode(run.model, run.variables, z), member.seed, NO_SPACES)
        wanted = pytest.approx(found["sliced_wasserstein"], rel=1e-5)
        assert member.test[f"sliced_wasserstein_{name}"] == wanted
    floor = set_figures(images, splits.train.take(rows), member.seed, NO_SPACES)
    assert member.test["sliced_wasserstein_floor"] == floor["sliced_wasserstein"]
    assert (member.folder / "samples_gaussian.png").is_file()
    with pytest.raises(UserError, match="--priors has 'grand'; valid are gaussian, mixture"):
        Options(priors=("grand",))


def test_measuring_again_is_reading_what_was_kept(swept, monkeypatch):
    config, workdir, trained, result = swept
    splits, folder = open_splits(config.data), result.members[0].folder
    kept = (folder / "figures.json").read_bytes()
    measured = []
    real = sweep_measurement.measure_member
    monkeypatch.setattr(
        sweep_measurement,
        "measure_member",
        lambda run, *rest: measured.append(1) or real(run, *rest),
    )
    again = measure(config, workdir, trained, splits, Options(), silent)
    assert again.members == result.members and not measured
    for broken in (b"{", b"{}", b"[]", b'{"key": 3}', kept.replace(b'"psnr": ', b'"psnr": "x')):
        (folder / "figures.json").write_bytes(broken)
        again = measure(config, workdir, trained, splits, Options(), silent)
        assert again.members == result.members
    assert len(measured) == 5


def test_a_failed_member_has_no_figures_and_stops_nothing(swept):
    config, workdir, trained, result = swept
    name = result.members[0].name
    bad = trained._replace(outcomes=trained.outcomes | {name: Outcome("diverged", "not finite", 3)})
    again = measure(config, workdir, bad, open_splits(config.data), Options(), silent)
    assert (again.members[0].status, again.members[0].test) == ("diverged", {})
    assert again.members[1:] == result.members[1:]


def test_samples_in_the_features_of_one_classifier(swept, tmp_path):
    config, workdir, trained, _ = swept
    judge = classifier_faces.get_config()
    judge.data = config.data.copy_and_resolve_references()
    judge.data.condition, judge.data.attributes = "attributes", ("Red",)
    judge.classifier.filters = judge.classifier.kernel_sizes = (4,)
    judge.classifier.strides, judge.classifier.padding = (2,), ("same",)
    judge.train.batch_size, judge.train.epochs = 8, 1
    fit(judge, tmp_path / "judge", silent)
    options = Options(str(tmp_path / "judge"))
    result = measure(config, workdir, trained, open_splits(config.data), options, silent)
    for member in result.members:
        assert member.test["classifier_frechet"] > 0
        assert 0 <= member.test["classifier_coverage"] <= 1
    page = ablation.page([result])
    assert any("classifier" in t.caption for s in page.sections for t in s.tables)
    config = config.copy_and_resolve_references()
    config.data.image_shape = (32, 32, 3)
    with pytest.raises(UserError, match=r"sees images of \(16, 16, 3\).*train one on the same"):
        measure(config, workdir, trained, open_splits(swept[0].data), options, silent)
    config.data.image_shape, config.data.name = (16, 16, 3), "faces"
    other = open_splits(swept[0].data)._replace(digest="0" * 64)
    with pytest.raises(UserError, match="was trained on other images .celeba at"):
        measure(config, workdir, trained, other, options, silent)


def test_results_are_read_back_as_they_were_measured(swept):
    _, workdir, _, result = swept
    read = read_results(workdir)
    assert read.members == result.members and read.images == result.images
    assert read.config.to_dict() == result.config.to_dict()
    rows = list(csv.DictReader(io.StringIO(results_csv(read).decode())))
    assert [row["name"] for row in rows] == [member.name for member in result.members]
    assert float(rows[1]["test_psnr"]) == result.members[1].test["psnr"]


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("schema",), 1, "its format is another"),
        (("members", 0, "z_dim"), "two", r"results.members\[0\].z_dim is not of type int"),
        (("members", 0, "seed"), True, "seed is not of type int"),
        (("members", 0, "name"), "../../etc", "not the name of a folder"),
        (("members", 0, "name"), "..", "not the name of a folder"),
        (("members", 0, "test", "psnr"), "high", "test.psnr is not a number or null"),
        (("seconds", "measuring"), 1e400, "seconds.measuring is not a number"),
        (("members", 0, "kl_per_dimension"), [None], r"kl_per_dimension\[0\] is not a number"),
        (("members", 0, "curves", "test"), "up", "curves.test is not of type dict"),
        (("members", 0, "curves", "test", "kl"), [], "are incomplete"),
        (("members",), [], "has 0 members"),
        (("members",), {}, "members is not of type list"),
        (("config", "model", "z_dim"), "many", "model.z_dim"),
        (("config",), {}, "is missing"),
        (("more",), 1, "missing or unknown entries: more"),
    ],
)
def test_results_from_elsewhere_are_checked_once(swept, tmp_path, place, value, sentence):
    content = json.loads((swept[1] / "ablation" / "results.json").read_text())
    inner = content["results"]
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence) as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"results": 3}', "[" * 100_000, "\xff"],
    ids=["empty", "list", "cut", "null", "number", "deep", "binary"],
)
def test_files_that_are_no_results_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="has no ablation/results.json; run experiments.ablation"):
        read_results(tmp_path)
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "results.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="does not hold the results of a sweep"):
        read_results(tmp_path)


def test_a_schema_names_the_place_of_what_does_not_fit():
    schema = {"a": [int], "b": {str: FIGURE}}
    value = {"a": [1, 2], "b": {"x": None, "y": 1.5}}
    assert checked(value, schema, "it") is value
    with pytest.raises(UserError, match=r"it.a\[1\] is not of type int"):
        checked({"a": [1, "2"], "b": {}}, schema, "it")
    with pytest.raises(UserError, match="it has missing or unknown entries: b"):
        checked({"a": []}, schema, "it")

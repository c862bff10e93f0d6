"""The page of a told model, whose cells are members of a sweep."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from made_up_sweeps import member, sweep_of

from vae_jax.models.told import Pair
from vae_jax.report.page import write_study
from vae_jax.run import decode, open_plane, prior_latents, run_at, run_splits
from vae_jax.studies import ablation, plane
from vae_jax.studies.plane import Options, chosen_pairs
from vae_jax.studies.sweep_results import read_results, results_csv
from vae_jax.subject import encode_subject, make_subject
from vae_jax.types import UserError

PAIRS = [(1, 0.5), (1, 10.0), (4, 0.5), (4, 10.0)]


@pytest.fixture(scope="module")
def measured(told_run):
    """Four pairs of a tiny told model."""
    _, workdir = told_run
    return plane.measure([open_plane(workdir)], Options((0.5, 10.0), (1, 4)))


def test_every_pair_is_a_member_with_its_own_latent_size(measured):
    members = measured.cells.members
    assert [(m.z_dim, m.kl_weight) for m in members] == PAIRS
    assert [len(m.kl_per_dimension) for m in members] == [1, 1, 4, 4]
    for own in members:
        assert own.test["beta"] == pytest.approx(3 * own.kl_weight)
        assert own.test["kl"] == pytest.approx(sum(own.kl_per_dimension), rel=1e-4)
        assert own.test["elbo"] == pytest.approx(-own.test["recon"] - own.test["kl"])
        assert 0 <= own.test["active_units"] <= own.z_dim


def test_figures_and_samples_are_those_of_the_model_at_the_pair(measured, told_run):
    """Computed again with the smaller network, whose program is another."""
    _, workdir = told_run
    run = run_at(open_plane(workdir), Pair(0.5, 1))
    seen = encode_subject(make_subject(run, run_splits(run).test))
    kl = 0.5 * (seen.mean**2 + np.exp(seen.log_var) - 1 - seen.log_var).sum(axis=1)
    assert measured.cells.members[0].test["kl"] == pytest.approx(kl.mean(), rel=1e-3)
    expected = decode(run.model, run.variables, prior_latents(run.config.seed, 16, 1))
    np.testing.assert_allclose(measured.samples[Pair(0.5, 1)], expected, atol=1e-5)
    other = measured.samples[Pair(0.5, 4)]
    assert other.shape == expected.shape and not np.allclose(other, expected)


def test_the_page_and_its_numbers_stand_beside_sweeps(measured, told_run, tmp_path):
    page = plane.page(measured)
    (tmp_path / "plane").mkdir()
    written = write_study(tmp_path / "plane", page, measured.numbers)
    names = {path.name for path in written}
    assert {"index.html", "results.json", "samples.png", "reconstructions.png"} <= names
    assert {"rate-distortion.png", "heat-psnr.png", "heat-sliced-wasserstein.png"} <= names
    read = read_results(tmp_path)
    folderless = [replace(m, folder=None) for m in read.members]
    assert folderless == [replace(m, folder=None) for m in measured.cells.members]
    assert "told" in read.config and len(ablation.page([read]).sections) > 3
    (first, *_) = csv.DictReader(io.StringIO(results_csv(read).decode()))
    for column in ("z_dim", "kl_weight", "seed", "test_recon", "test_kl", "test_psnr",
                   "test_sliced_wasserstein", "test_sliced_wasserstein_floor"):  # fmt: skip
        assert column in first
    assert "four pairs" not in page.lead and "4 pairs" in page.lead and "1 seed" in page.lead


def test_pairs_are_those_of_the_range_or_of_the_sweep(told_run):
    told = open_plane(told_run[1])
    pairs = chosen_pairs(told, Options(), None)
    assert [pair.z_dim for pair in pairs] == [1] * 5 + [2] * 5 + [4] * 5
    assert [pair.kl_weight for pair in pairs[:5]] == [0.1, 0.32, 1.0, 3.2, 10.0]
    sweep = sweep_of([member(w, z, 0) for w in (0.0, 2.0, 20.0) for z in (2, 8)])
    pairs = chosen_pairs(told, Options(), sweep)
    assert pairs == [(0.1, 2), (2.0, 2), (10.0, 2)]
    with pytest.raises(UserError, match="--z_dim=8: this model was trained for z_dim 1 to 4"):
        chosen_pairs(told, Options(sizes=(8,)), None)


def test_what_is_no_plane_is_refused(told_run, tmp_path):
    told = open_plane(told_run[1])
    with pytest.raises(UserError, match="is told neither KL weight nor latent size"):
        plane.measure([run_at(told, Pair())], Options())
    other = told.config.copy_and_resolve_references()
    other.train.epochs = 7
    with pytest.raises(UserError, match="differ in config.train.epochs: only seeds of one model"):
        plane.measure([told, replace(told, config=other)], Options())

"""Priors in a run folder: read back bit for bit, and refused with another checkpoint."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from configs import tiny
from vae_jax.checkpoint import digests
from vae_jax.interop.export import write_sampler
from vae_jax.models.told import Pair
from vae_jax.priors.fitted import KINDS, Prior, draw, fit_to_run
from vae_jax.priors.kept import keep_prior, open_prior
from vae_jax.run import open_run
from vae_jax.train.trainer import fit
from vae_jax.types import UserError


@pytest.fixture(scope="module")
def trained(tiny_store, tmp_path_factory):
    """A run of two epochs with two priors."""
    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    workdir = tmp_path_factory.mktemp("run")
    fit(config, workdir, lambda text: None)
    run = open_run(workdir)
    for kind in ("gaussian", "mixture"):
        keep_prior(run, fit_to_run(run, kind))
    return run


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_priors_are_read_back_bit_for_bit(trained):
    before = fit_to_run(trained, "mixture")
    kept = open_prior(trained, "mixture")
    jax.tree.map(np.testing.assert_array_equal, before.density, kept.density)
    np.testing.assert_array_equal(draw(before, 3, 5), draw(kept, 3, 5))
    assert (kept.kind, kept.facts["codes"], kept.facts["held_out_codes"]) == ("mixture", 33, 4)
    assert open_prior(trained, "gaussian").kind == "gaussian"  # the first one stayed
    assert draw(open_prior(trained, "normal"), 0, 2).shape == (2, 4)


@pytest.mark.parametrize("kind", ["two_stage", "flow"])
def test_networks_are_read_back_bit_for_bit(copied, kind):
    prior = Prior(kind, "mine", np.ones((1, 4), np.float32), KINDS[kind].empty(4, {}))
    keep_prior(copied, prior)
    np.testing.assert_array_equal(draw(open_prior(copied, "mine"), 0, 3), draw(prior, 0, 3))


def test_every_flipped_byte_that_matters_is_noticed(copied):
    path = copied.workdir / "priors" / "gaussian.npz"
    good, before = path.read_bytes(), draw(open_prior(copied, "gaussian"), 0, 4)
    for place in np.random.default_rng(0).choice(len(good), 60, replace=False):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            np.testing.assert_array_equal(draw(open_prior(copied, "gaussian"), 0, 4), before)
        except UserError as error:
            assert "is damaged (" in str(error) and "fit it again" in str(error)
    for broken in (b"", good[:200], b"PK", good[:-40]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"gaussian.npz is damaged .*; fit it again"):
            open_prior(copied, "gaussian")


def test_a_prior_of_something_else_is_refused(copied, trained):
    others = {
        "another checkpoint .step 10, not 9": replace(copied, step=9),
        "None KL weight and latent size, not": replace(copied, pair=Pair(1.0, 4)),
    }
    steps = {10: copied.workdir / "checkpoints" / "10", 9: copied.workdir / "checkpoints" / "9"}
    shutil.rmtree(steps[9], ignore_errors=True)
    shutil.copytree(steps[10], steps[9])
    record = json.loads((steps[9] / "record" / "metadata").read_text())["record"] | {"step": 9}
    (steps[9] / "record" / "metadata").write_text(json.dumps(digests.seal(record)))
    for sentence, run in others.items():
        with pytest.raises(UserError, match=sentence):
            open_prior(run, "gaussian")
    wider = replace(copied, model=copied.model.clone(z_dim=9))
    with pytest.raises(UserError, match="codes of 4 latent dimensions, not 9; fit it again"):
        open_prior(wider, "gaussian")
    leaves = record["items"]["encoder"]
    next(iter(leaves.values()))["sha256"] = "0" * 64
    (steps[10] / "record" / "metadata").write_text(json.dumps(digests.seal(record | {"step": 10})))
    with pytest.raises(UserError, match="codes of another checkpoint of the same step"):
        open_prior(copied, "gaussian")


def test_a_record_that_was_sealed_anew_cannot_lie(copied):
    path = copied.workdir / "priors" / "mixture.npz"
    with np.load(path) as file:
        arrays = dict(file)
    record = digests.unseal(arrays["record"].tobytes())
    for lie in ({"kind": "flow"}, {"kind": "none"}, {"facts": {}}, {"facts": {"components": 7}}):
        sealed = json.dumps(digests.seal(record | lie)).encode()
        np.savez(path, **arrays | {"record": np.frombuffer(sealed, np.uint8)})
        with pytest.raises(UserError, match="is damaged"):
            open_prior(copied, "mixture")


def test_the_sampler_travels_with_the_decoder(trained, tmp_path):
    pytest.importorskip("flatbuffers")
    prior = open_prior(trained, "mixture").at(0.5)
    artifact, about = write_sampler(trained, prior, tmp_path)
    sample = jax.export.deserialize(artifact.read_bytes()).call
    z = sample(np.uint32(33), np.arange(5, dtype=np.uint32))
    np.testing.assert_allclose(z, draw(prior, 33, 5), rtol=1e-5, atol=1e-6)
    meaning = json.loads(about.read_text())
    assert (meaning["prior"], meaning["prior_kind"], meaning["temperature"]) == (
        "mixture", "mixture", "0.5"
    )  # fmt: skip
    assert meaning["outputs"]["z"]["shape"] == ["b", 4]


def test_names(copied, trained):
    with pytest.raises(UserError, match=r"has no prior 'flow' .there: gaussian, mixture.; fit one"):
        open_prior(trained, "flow")
    prior = open_prior(trained, "gaussian")
    for name in ("normal", "../up", "", ".hidden"):
        with pytest.raises(UserError, match="but the name of a prior has letters"):
            keep_prior(copied, replace(prior, name=name))

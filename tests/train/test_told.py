"""Training a model that is told KL weight and latent size, beside everything that there is."""

import signal
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told_models import RANGE, told_config

from vae_jax.config import what_is_told
from vae_jax.losses import REDUCTIONS, Objective
from vae_jax.models.told import Pair
from vae_jax.models.vae import at_pair
from vae_jax.run import open_run
from vae_jax.run_folder import read_rows
from vae_jax.streams import step_key, stream_key
from vae_jax.train import trainer
from vae_jax.train.engine import Mapped
from vae_jax.train.setup import make_experiment
from vae_jax.train.step import objective_terms
from vae_jax.train.trainer import fit
from vae_jax.types import Batch


def batch(count=8):
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    return Batch(jnp.asarray(images), jnp.ones(count))


@cache
def experiment(names=("kl_weight", "z_dim"), **fields):
    return make_experiment(told_config(names, **fields), total_steps=10)


@cache
def compiled(step):
    return jax.jit(step)


def after_steps(setup, count=2):
    """State after some steps, so that gates say something, and the last step's metrics."""
    state, metrics, step = setup.init_state(), {}, compiled(setup.train_step)
    for _ in range(count):
        state, metrics = step(state, batch(), setup.run_key, setup.hyper)
    return state, metrics


@pytest.fixture(scope="module")
def trained():
    setup = experiment()
    return setup, after_steps(setup)[0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_at_a_fixed_pair_is_that_of_the_untold_model_with_the_same_weights(
    trained, reduction
):
    """In training mode: batch statistics of the same images, equal noise."""
    setup, state = trained
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    objective, x = Objective("bernoulli", reduction), batch().images / 255
    pair = Pair(jnp.full(8, 0.5), jnp.full(8, 2.0))
    mask, noise = setup.model.told.z_mask(pair), jax.random.normal(jax.random.key(1), (8, 4))
    options = {"train": True, "sample": True, "mutable": ["batch_stats"]}

    @partial(jax.jit, static_argnums=0)
    def terms(model, variables, kl_weight, noise, mask=None, pair=None):
        output, _ = model.apply(variables, x, noise=noise, z_mask=mask, pair=pair, **options)
        return objective_terms(objective, output, x, jnp.ones(8), kl_weight, mask)

    told = terms(setup.model, variables, pair.kl_weight, noise, mask, pair)
    alone, folded = at_pair(setup.model, variables, Pair(0.5, 2))
    untold = terms(alone, folded, 0.5, noise[:, :2])
    for name, value in untold.items():
        assert float(told[name]) == pytest.approx(float(value), rel=1e-5), name
    beta = {"sum": 0.5, "channel_mean": 1.5, "mean": 2 * 0.5 * 16 * 16 * 3 / 2}[reduction]
    assert float(told["beta"]) == pytest.approx(beta) and float(told["kl_weight"]) == 0.5


def test_the_step_draws_the_pairs_from_their_stream(trained):
    """The logged weight is the mean of what the step's key gives, whatever else is drawn."""
    setup, _ = trained
    _, metrics = after_steps(setup, 1)
    key = stream_key(step_key(setup.run_key, 0), "told")
    weights = setup.model.told.draw(key, 8, Pair(3.0, 4)).kl_weight
    assert float(metrics["kl_weight"]) == pytest.approx(float(weights.mean()))
    assert float(metrics["beta"]) == pytest.approx(3 * float(weights.mean()))
    assert float(metrics["loss"]) == pytest.approx(float(metrics["recon"] + metrics["kl_weighted"]))


def test_masked_dimensions_have_no_gradient_and_no_kl():
    """Told Z = 1 and 2 of 4 alone, the columns and rows of the others never move."""
    setup = experiment(("z_dim",))
    model, objective = setup.model, setup.objective
    variables = {name: getattr(setup.init_state(), name) for name in ("params", "batch_stats")}
    pair = Pair(jnp.full(8, 3.0), jnp.asarray([1.0, 2.0] * 4))
    mask, x = model.told.z_mask(pair), batch().images / 255

    def loss(params):
        output, _ = model.apply(
            variables | {"params": params}, x, train=True, sample=True, z_mask=mask, pair=pair,
            rngs={"latent": jax.random.key(2)}, mutable=["batch_stats"],
        )  # fmt: skip
        terms = objective_terms(objective, output, x, jnp.ones(8), 3.0, mask)
        return terms["loss"], (terms, output)

    gradient, (terms, output) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for layer in ("mean", "log_var"):
        columns = np.abs(gradient["encoder"][layer]["kernel"]).max(axis=0)
        assert (columns[:2] > 0).all() and (columns[2:] == 0).all()
    rows = np.abs(gradient["decoder"]["dense"]["kernel"]).max(axis=1)
    assert (rows[:2] > 0).all() and (rows[2:] == 0).all()
    each = 0.5 * (output.mean**2 + jnp.exp(output.log_var) - 1 - output.log_var)
    expected = (each[:, 0] + jnp.asarray([0.0, 1.0] * 4) * each[:, 1]).mean()
    assert float(terms["kl"]) == pytest.approx(float(expected), rel=1e-5)


def test_free_bits_count_the_dimensions_that_an_image_has():
    """At no KL every image pays the floor for each of its own dimensions."""
    setup = experiment(("z_dim",), **{"loss.free_bits": 0.5, "loss.kl_weight": 2.0})
    told = setup.model.told
    mask = told.z_mask(Pair(jnp.full(8, 2.0), jnp.asarray([1.0, 4.0] * 4)))
    output = setup.model.apply(
        {name: getattr(setup.init_state(), name) for name in ("params", "batch_stats")},
        batch().images / 255, train=False, sample=False, z_mask=mask,
        pair=Pair(jnp.full(8, 2.0), jnp.full(8, 4.0)),
    )  # fmt: skip
    silent = output._replace(mean=output.mean * 0, log_var=output.log_var * 0)
    terms = objective_terms(setup.objective, silent, batch().images / 255, jnp.ones(8), 2.0, mask)
    assert float(terms["kl"]) == 0
    assert float(terms["kl_weighted"]) == pytest.approx(2.0 * 0.5 * (1 + 4) / 2)


def test_micro_batches_are_told_what_the_whole_batch_is():
    fields = {"model.norm": "none"}
    _, whole = after_steps(experiment(**fields))
    _, parts = after_steps(experiment(**fields, **{"train.accumulate": 4}))
    for name in whole:
        assert float(parts[name]) == pytest.approx(float(whole[name]), rel=1e-4), name


def test_a_schedule_scales_the_weight_that_each_image_is_told():
    fields = {"loss.kl_schedule": "linear", "loss.kl_schedule_steps": 4}
    _, warm = after_steps(experiment(**fields), 2)
    _, constant = after_steps(experiment(), 2)
    assert float(warm["kl_weight"]) == pytest.approx(float(constant["kl_weight"]) / 4)


@pytest.mark.parametrize(
    "likelihood",
    [
        "optimal_sigma",
        pytest.param("bernoulli", marks=pytest.mark.slow),
        pytest.param("squared_error", marks=pytest.mark.slow),
        pytest.param("gaussian", marks=pytest.mark.slow),
    ],
)
def test_every_likelihood_trains(likelihood):
    setup = experiment(**{"loss.likelihood": likelihood})
    _, first = after_steps(setup, 1)
    _, last = after_steps(setup, 8)
    assert last["finite"] and float(last["recon"]) < float(first["recon"])


@pytest.mark.slow
def test_members_that_are_trained_together_are_told_what_they_are_told_alone():
    """Seeds side by side: each draws the pairs of its own run."""
    from vae_jax.train.task import vae_task

    class NoLabels:
        train = list(range(40))

    configs = [told_config(seed=seed) for seed in (0, 1)]
    tasks = [vae_task(config, NoLabels()) for config in configs]
    engine = Mapped(tasks)
    step = jax.jit(jax.vmap(engine.task.train_step, (0, None, 0, 0)))
    state = engine.pack([task.init_state() for task in tasks])
    _, together = step(state, batch(), engine.key, engine.hyper)
    for k, task in enumerate(tasks):
        _, alone = jax.jit(task.train_step)(task.init_state(), batch(), task.run_key, task.hyper)
        assert float(together["kl_weight"][k]) == pytest.approx(float(alone["kl_weight"]))
        assert float(together["loss"][k]) == pytest.approx(float(alone["loss"]), rel=1e-5)


def quiet(*_):
    pass


def test_a_told_run_that_was_stopped_resumes_bit_for_bit(
    told_run, tmp_path, monkeypatch, assert_same_run
):
    config, reference = told_run
    run_epoch = trainer.run_epoch

    def stopped(*arguments):
        for number, call in enumerate(run_epoch(*arguments)):
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
            yield call

    monkeypatch.setattr(trainer, "run_epoch", stopped)
    assert fit(config, tmp_path, quiet).interrupted_by == signal.SIGTERM
    monkeypatch.undo()
    assert fit(config, tmp_path, quiet).step == 10
    assert_same_run(config, reference, tmp_path)


def test_rows_are_means_over_the_plane(told_run):
    _, workdir = told_run
    for row in read_rows(workdir):
        assert RANGE[0] < row["kl_weight"] < RANGE[1] and row["kl_weight"] != 3.0
        assert row["beta"] == pytest.approx(3 * row["kl_weight"], rel=1e-5)
        assert row["loss"] == pytest.approx(row["recon"] + row["kl_weighted"], rel=1e-6)


def test_a_run_opens_at_a_pair_as_one_that_was_trained_for_it(told_run):
    config, workdir = told_run
    run = open_run(workdir, pair=Pair(0.5, 2))
    assert run.model.told is None and "told" not in run.config
    assert (run.model.z_dim, run.config.model.z_dim, run.config.loss.kl_weight) == (2, 2, 0.5)
    assert run.provenance["kl_weight"] == "0.5" and run.provenance["z_dim"] == "2"
    usual = open_run(workdir)
    assert usual.pair == (config.loss.kl_weight, config.model.z_dim)
    assert what_is_told(config) is not None

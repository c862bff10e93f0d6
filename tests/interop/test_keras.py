"""Weights from Keras and back; outputs, losses and gradients against Keras' own numbers."""

import functools
import importlib
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from experiments.import_keras import import_run
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.interop.keras import from_arrays, load_keras, save_keras, to_arrays
from vae_jax.latent.sampling import decode, encode, prior_latents
from vae_jax.losses import Objective
from vae_jax.models.vae import make_vae, reparameterize
from vae_jax.train.persistence import restore
from vae_jax.train.setup import make_experiment
from vae_jax.train.step import objective_terms
from vae_jax.types import UserError, VAEOutput
from vae_jax.workdir import CHECKPOINTS, open_run

FOLDER = Path(__file__).parent
TINY_FILES = [FOLDER / f"tiny_{network}.weights.h5" for network in ("encoder", "decoder")]
CONFIGS = {"mnist_z12": "mnist_z12", "keras_example": "keras_example", "celeba96": "celeba"}
# Both types and both implementations of convolution meet Keras. Dtype, relative tolerance:
PRECISIONS = {
    "mnist_z12": (jnp.float64, 1e-9),
    "keras_example": (jnp.float32, 1e-5),
    "celeba96": (jnp.float64, 1e-9),
}
CONVOLUTIONS = {"mnist_z12": "matmul", "keras_example": "matmul", "celeba96": "xla"}
COUNTS = {
    "mnist_z12": [243_224, 174_081],
    "keras_example": [69_076, 65_089],
    "celeba96": [5_109_440, 2_757_571],
}
WAYS = ("explicit_0", "layer_loss", "extra_outputs", "model_loss")


def _fixture_script():
    spec = importlib.util.spec_from_file_location(
        "make_keras_fixture", FOLDER / "make_keras_fixture.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fixture = _fixture_script()


@pytest.fixture(scope="module")
def kept():
    with np.load(FOLDER / "keras_reference.npz") as arrays:
        return dict(arrays)


def formula_arrays(roles):
    """The weights of `make_keras_fixture`, in Keras' order, by network."""
    return [
        [fixture.draw_weight(*role, seed, i) for i, role in enumerate(roles[network])]
        for seed, network in enumerate(("encoder", "decoder"))
    ]


def forward(module, images, noise, train):
    """The model with given noise."""
    mean, log_var = module.encoder(images, train)
    z = reparameterize(mean, log_var, noise)
    return VAEOutput(module.decoder(z, train), mean, log_var, z)


class Ours(NamedTuple):
    """What our model computes with the fixture's weights, images and noise; summaries `[..., 3]`.

    Attributes:
        counts: parameters of encoder and decoder, statistics included.
        outputs: of the two forward passes, by the fixture's names.
        updated: by network, of all weights after the running statistics saw one batch.
        losses: one for each objective.
        gradients: one `[W, 3]` for each objective.
    """

    counts: list[int]
    outputs: dict[str, np.ndarray]
    updated: dict[str, np.ndarray]
    losses: list[float]
    gradients: list[np.ndarray]


def compute(name, roles, dtype):
    config = importlib.import_module(f"configs.{CONFIGS[name]}").get_config()
    # TensorFlow's LeakyReLU holds its slope in float32, whatever the type of its input.
    config.model.negative_slope = float(np.float32(config.model.negative_slope))
    config.model.convolution = CONVOLUTIONS[name]
    model = make_vae(config.model, config.data.image_shape)
    arrays = formula_arrays(roles)
    data = (from_arrays(*arrays, model), *fixture.inputs_of(fixture.MODELS[name]))
    variables, images, noise = jax.tree.map(lambda array: jnp.asarray(array, dtype), data)
    objectives = fixture.MODELS[name].objectives

    def run(params, batch_stats, images, noise, choice, train):
        variables = {"params": params, "batch_stats": batch_stats}
        output, updated = model.apply(
            variables, images, noise, train, method=forward, mutable=["batch_stats"]
        )
        ones = jnp.ones(len(images), images.dtype)
        losses = [
            objective_terms(Objective(*objective), output, images, ones, kl_weight)["loss"]
            for *objective, kl_weight in objectives
        ]
        statistics = batch_stats | updated.get("batch_stats", {})
        return jnp.stack(losses) @ choice, (output, statistics)

    run_eval = jax.jit(partial(run, train=False))
    run_train = jax.jit(jax.value_and_grad(partial(run, train=True), has_aux=True))
    inputs = (variables["params"], variables["batch_stats"], images, noise)
    choices = np.eye(len(objectives), dtype=dtype)
    _, (evaluated, _) = run_eval(*inputs, choices[0])
    trained = [run_train(*inputs, choice) for choice in choices]
    (_, (output, statistics)), _ = trained[0]
    updated = to_arrays({"params": variables["params"], "batch_stats": statistics})
    return Ours(
        [sum(array.size for array in network) for network in arrays],
        summarize(output, "train") | summarize(evaluated, "eval"),
        {network: summaries(weights) for network, weights in updated.items()},
        [float(loss) for (loss, _), _ in trained],
        [summaries(trainable(gradients, statistics, roles)) for _, gradients in trained],
    )


def trainable(gradients, statistics, roles):
    """The gradients in the order of Keras' trainable weights."""
    arrays = to_arrays({"params": gradients, "batch_stats": statistics})
    return [
        array
        for network in ("encoder", "decoder")
        for array, (role, _) in zip(arrays[network], roles[network], strict=True)
        if not role.startswith("moving")
    ]


def summaries(arrays):
    return np.array([fixture.summary(array) for array in arrays])


def summarize(output, mode):
    parts = {"mean": output.mean, "log_var": output.log_var, "p": jax.nn.sigmoid(output.logits)}
    return {f"{part}_{mode}": fixture.summary(value) for part, value in parts.items()}


@pytest.fixture(scope="module")
def ours(kept):
    @functools.cache
    def by_name(name):
        dtype, _ = PRECISIONS[name]
        with jax.enable_x64(dtype == jnp.float64):
            return compute(name, json.loads(str(kept[f"{name}/weights"])), dtype)

    return by_name


def assert_close(actual, expected, rtol):
    """Summaries agree relative to each array's norm, or to a ten-thousandth of the largest norm.

    The gradient of a bias in front of a batch norm is exactly 0: only rounding is left of it.
    """
    actual, expected = np.atleast_2d(actual), np.atleast_2d(expected)
    norms = np.maximum(expected[:, :1], 1e-4 * expected[:, :1].max())
    np.testing.assert_array_less(np.abs(actual - expected) / norms, rtol)


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_losses_and_gradients_are_those_of_keras(name, ours, kept):
    computed, (_, rtol) = ours(name), PRECISIONS[name]
    assert computed.counts == kept[f"{name}/counts"].tolist() == COUNTS[name]
    for part, value in computed.outputs.items():
        assert_close(value, kept[f"{name}/{part}"], rtol)
    for network, value in computed.updated.items():
        assert_close(value, kept[f"{name}/updated_{network}"], rtol)
    for i, (loss, gradients) in enumerate(zip(computed.losses, computed.gradients, strict=True)):
        assert loss == pytest.approx(float(kept[f"{name}/loss_explicit_{i}"]), rel=rtol)
        assert_close(gradients, kept[f"{name}/gradients_explicit_{i}"], rtol)


@pytest.mark.parametrize("way", WAYS)
def test_the_four_ways_to_add_the_kl_in_keras_are_our_one_function(way, ours, kept):
    (loss,), (gradients,) = ours("mnist_z12").losses, ours("mnist_z12").gradients
    assert loss == pytest.approx(float(kept[f"mnist_z12/loss_{way}"]), rel=1e-9)
    assert_close(gradients, kept[f"mnist_z12/gradients_{way}"], 1e-9)


@pytest.fixture
def tiny_model():
    return make_vae(tiny_keras_config().model, (16, 16, 3))


def tiny_keras_config():
    """The layers of `make_keras_fixture.TINY`."""
    config = tiny.get_config()
    config.model.conv_bias = True
    config.model.encoder.dense = (6,)
    return config


@pytest.fixture
def tiny_weights(kept, tiny_model):
    arrays = formula_arrays(json.loads(str(kept["tiny/weights"])))
    return jax.tree.map(np.float32, from_arrays(*arrays, tiny_model))


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_file_of_keras_gives_every_weight_its_place(tiny_model, tiny_weights):
    assert_equal(load_keras(*TINY_FILES, tiny_model), tiny_weights)


def test_saved_files_read_back_and_are_laid_out_as_keras_lays_them_out(
    tmp_path, tiny_model, tiny_weights
):
    files = [tmp_path / file.name for file in TINY_FILES]
    save_keras(tiny_weights, *files)
    assert_equal(load_keras(*files, tiny_model), tiny_weights)
    for ours, theirs in zip(files, TINY_FILES, strict=True):
        assert datasets(ours) == datasets(theirs)
    assert sorted(tmp_path.iterdir()) == sorted(files)


def datasets(file):
    found = {}
    with h5py.File(file) as h5:
        h5.visititems(lambda name, entry: found.update({name: getattr(entry, "shape", None)}))
    return {name: shape for name, shape in found.items() if shape is not None}


def test_arrays_go_there_and_back(tiny_model, tiny_weights):
    arrays = to_arrays(tiny_weights)
    assert_equal(from_arrays(arrays["encoder"], arrays["decoder"], tiny_model), tiny_weights)
    with pytest.raises(UserError, match="list for the decoder holds 9 arrays.* has 10"):
        from_arrays(arrays["encoder"], arrays["decoder"][:-1], tiny_model)


def edited(tmp_path, network, edit):
    """The two files of Keras, one of them a copy that `edit` changed."""
    files = list(TINY_FILES)
    files[network] = tmp_path / "edited.weights.h5"
    files[network].write_bytes(TINY_FILES[network].read_bytes())
    with h5py.File(files[network], "r+") as h5:
        edit(h5)
    return files


def test_one_file_of_a_whole_model_serves_for_both(tmp_path, tiny_model, tiny_weights):
    file = tmp_path / "vae.weights.h5"
    with h5py.File(file, "w") as whole:
        for name, part in zip(("enc", "dec"), TINY_FILES, strict=True):
            with h5py.File(part) as h5:
                h5.copy(h5["layers"], whole.create_group(name))
    assert_equal(load_keras(file, file, tiny_model), tiny_weights)


def test_a_variance_layer_that_was_built_first_is_recognised(tmp_path, tiny_model, tiny_weights):
    def exchange(h5):
        h5.move("layers/dense_1", "layers/kept")
        h5.move("layers/dense_2", "layers/dense_1")
        h5.move("layers/kept", "layers/dense_2")

    assert_equal(load_keras(*edited(tmp_path, 0, exchange), tiny_model), tiny_weights)


def replace_kernel(value):
    def edit(h5):
        del h5["layers/conv2d_1/vars/0"]
        h5["layers/conv2d_1/vars/0"] = value

    return edit


@pytest.mark.parametrize(
    ("network", "edit", "message"),
    [
        (0, replace_kernel(np.zeros((3, 3, 4, 9), np.float32)),
         r"layers/conv2d_1 has weights of shape \(3, 3, 4, 9\) and \(8,\), "
         r"but encoder/conv_1 of this config has \(3, 3, 4, 8\) and \(8,\)"),
        (0, replace_kernel(np.full((3, 3, 4, 8), np.nan, np.float32)), "conv2d_1 .*finite floats"),
        (0, lambda h5: h5.pop("layers/conv2d_1"), "1 Conv2D layers .* has 2 .conv_0, conv_1"),
        (1, lambda h5: h5.pop("layers/batch_normalization"), "0 BatchNormalization layers .none"),
        (1, lambda h5: h5.pop("layers/conv2d_transpose/vars/1"), "decoder/conv_0 of this config"),
        (1, lambda h5: h5.pop("layers"), "edited.weights.h5 holds 0 Keras 3 models with Conv2DT"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, tiny_model, network, edit, message):
    with pytest.raises(UserError, match=message):
        load_keras(*edited(tmp_path, network, edit), tiny_model)


def test_files_that_are_no_hdf5_are_named(tmp_path, tiny_model, tiny_weights):
    text, cut = tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"
    text.write_text("<html>quota exceeded</html>")
    cut.write_bytes(TINY_FILES[0].read_bytes()[:9000])
    for file in (text, cut):
        with pytest.raises(UserError, match=f"{file.name} is not a readable HDF5 file"):
            load_keras(file, TINY_FILES[1], tiny_model)
    with pytest.raises(UserError, match="missing.weights.h5 does not exist"):
        load_keras(TINY_FILES[0], tmp_path / "missing.weights.h5", tiny_model)
    with pytest.raises(UserError, match="dec.h5 must end in .weights.h5"):
        save_keras(tiny_weights, tmp_path / "enc.weights.h5", tmp_path / "dec.h5")


def test_a_missing_h5py_names_the_extra(monkeypatch, tiny_model):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="extra `keras-weights`"):
        load_keras(*TINY_FILES, tiny_model)


def test_an_imported_run_decodes_encodes_and_is_where_training_goes_on(tmp_path, tiny_weights):
    config, workdir = tiny_keras_config(), tmp_path / "run"
    import_run(config, *map(str, TINY_FILES), workdir)
    run = open_run(workdir)
    assert run.step == 0
    assert_equal(run.variables, tiny_weights)
    assert decode(run.model, run.variables, prior_latents(0, 2, 4)).shape == (2, 16, 16, 3)
    assert encode(run.model, run.variables, np.zeros((2, 16, 16, 3), np.uint8))[0].shape == (2, 4)
    experiment = make_experiment(config, 5)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        state, _ = restore(checkpoints, experiment)
    assert_equal({"params": state.params, "batch_stats": state.batch_stats}, tiny_weights)
    assert_equal(state.opt_state, experiment.init_state().opt_state)
    with pytest.raises(UserError, match="holds a run already"):
        import_run(config, *map(str, TINY_FILES), workdir)

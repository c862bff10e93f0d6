"""Files of Keras weights, in and out, and run folders made of them."""

import json
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from configs import tiny
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.interop.keras import from_arrays, import_run, load_keras, save_keras, to_arrays
from vae_jax.models.vae import make_vae
from vae_jax.run import decode, encode, open_run, prior_latents
from vae_jax.run_folder import CHECKPOINTS
from vae_jax.train.persistence import restore
from vae_jax.train.setup import make_experiment
from vae_jax.types import UserError

TINY_FILES = [
    Path(__file__).parent / f"tiny_{network}.weights.h5" for network in ("encoder", "decoder")
]


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
def tiny_weights(kept, tiny_model, formula_arrays):
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


def stored_as(h5, **how):
    """Writes a kernel of the right shape in another way than Keras does."""
    value = h5["layers/conv2d_1/vars/0"][()]
    del h5["layers/conv2d_1/vars/0"]
    data = {} if "external" in how else {"data": value}
    h5.create_dataset("layers/conv2d_1/vars/0", value.shape, value.dtype, **data, **how)


def virtual(h5):
    layout = h5py.VirtualLayout((3, 3, 4, 8), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 4, 8))
    del h5["layers/conv2d_1/vars/0"]
    h5.create_virtual_dataset("layers/conv2d_1/vars/0", layout)


def linked(link):
    def edit(h5):
        del h5["layers/conv2d_1"]
        h5["layers/conv2d_1"] = link

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h5: stored_as(h5, external=[("/etc/passwd", 0, 1152)]), "in another file"),
        (virtual, "vars/0 is put together from other data sets and is not read"),
        (lambda h5: stored_as(h5, compression="lzf"), r"needs the HDF5 filters \[32000\]"),
        (lambda h5: stored_as(h5, chunks=(9, 9, 99, 99), maxshape=(None,) * 4, compression=1),
         "chunks of .9, 9, 99, 99., larger than itself"),
        (linked(h5py.ExternalLink("other.h5", "/x")), "layers/conv2d_1 is a link to another place"),
        (linked(h5py.SoftLink("/layers/conv2d")), "layers/conv2d_1 is a link to another place"),
        (replace_kernel(np.zeros((3, 3, 4, 8), np.int32)), "holds int32 values"),
        (replace_kernel(np.array(["text"], h5py.string_dtype())), r"weights of shape \(1,\)"),
        (lambda h5: h5.move("layers/conv2d_1", f"layers/conv2d_{'9' * 5000}"), "1 Conv2D layers"),
    ],
)  # fmt: skip
def test_data_sets_that_may_read_other_files_are_refused(tmp_path, tiny_model, edit, message):
    with pytest.raises(UserError, match=message):
        load_keras(*edited(tmp_path, 0, edit), tiny_model)


def test_compressed_weights_are_read(tmp_path, tiny_model, tiny_weights):
    files = edited(tmp_path, 0, lambda h5: stored_as(h5, compression="gzip", shuffle=True))
    assert_equal(load_keras(*files, tiny_model), tiny_weights)


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
    with pytest.raises(UserError, match="both be .*enc.weights.h5: name two files"):
        save_keras(tiny_weights, *[tmp_path / "enc.weights.h5"] * 2)
    assert not (tmp_path / "enc.weights.h5").exists()


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
    state, _ = restore(SavedSteps(workdir / CHECKPOINTS), experiment.init_state)
    assert_equal({"params": state.params, "batch_stats": state.batch_stats}, tiny_weights)
    assert_equal(state.opt_state, experiment.init_state().opt_state)
    with pytest.raises(UserError, match="holds a run already"):
        import_run(config, *map(str, TINY_FILES), workdir)

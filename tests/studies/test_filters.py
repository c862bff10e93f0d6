"""Pages of the filters of an encoder layer, against the network itself."""

import json

import numpy as np
import pytest
from PIL import Image

from vae_jax.report.page import write_study
from vae_jax.studies.filters import Options, Settings, measure, open_layer, page
from vae_jax.train.trainer import fit
from vae_jax.types import UserError

SETTINGS = Settings(scales=(3, 0), steps=(12,), precursors=4)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tiny_store):
    """One epoch of the tiny VAE."""
    from configs import tiny

    config = tiny.get_config()
    config.data.name, config.data.path, config.train.epochs = "celeba", str(tiny_store), 1
    folder = tmp_path_factory.mktemp("run")
    fit(config, folder, lambda _: None)
    return folder


def test_pages_of_an_encoder_layer(workdir, tmp_path):
    layer = open_layer(workdir, None, "conv_1")
    study = measure(layer, Options(seed=3, seeds=2, images=100, settings=SETTINGS))
    assert study.found.patterns.shape == (8, 16, 16, 3) and len(study.images) == 11
    paths = write_study(tmp_path, page(study), study.numbers)
    assert {path.name for path in paths} == {
        "index.html", "results.json", "filters.png", "evolution.png", "curves.png", "images.png",
        "seeds.png",
    }  # fmt: skip
    with Image.open(tmp_path / "filters.png") as sheet:
        assert sheet.text["layer"] == "conv_1" and sheet.text["seed"] == "3"
    with pytest.raises(UserError, match="--evolve=9 is not among the maps"):
        measure(layer, Options(evolve=9))

    figures = json.loads((tmp_path / "results.json").read_text())["results"]
    responses = [entry["response"] for entry in figures["maps"]]
    assert responses == sorted(responses, reverse=True)
    alive = [entry["map"] for entry in figures["maps"]]
    assert sorted(alive + figures["dead"]) == list(range(8))
    assert figures["projection"]["low"] == 0.0 and figures["projection"]["high"] == 1.0
    for entry in figures["maps"]:
        pattern = study.found.patterns[entry["map"]][None]
        again = np.asarray(layer.features(pattern))[..., entry["map"]].mean()
        assert entry["response"] == pytest.approx(float(again), rel=1e-4)
        assert entry["loss"] == -entry["response"]
        image = study.images[[entry["best_test_image"]]].astype(np.float32) / 255
        best = np.asarray(layer.features(image))[..., entry["map"]].mean()
        assert entry["best_test_response"] == pytest.approx(float(best), rel=1e-4)


def test_chosen_maps_in_the_order_given(workdir):
    layer = open_layer(workdir, None, "conv_0")
    study, again = (
        measure(layer, Options(maps, seed=3, seeds=1, images=5, settings=SETTINGS))
        for maps in ((3, 1), (1,))
    )
    assert len(study.images) == 5
    np.testing.assert_allclose(study.found.patterns[1], again.found.patterns[0], atol=1e-4)
    with pytest.raises(UserError, match="conv_0 has no map 4; valid are 0 to 3"):
        measure(layer, Options((4,)))


def test_an_unknown_layer_is_answered_with_the_valid_ones(workdir):
    with pytest.raises(UserError, match="'conv_7' is not a layer.*conv_0, conv_1"):
        open_layer(workdir, None, "conv_7")

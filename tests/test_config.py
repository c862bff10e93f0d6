"""Configs: every one builds; every mistake gets one sentence that names the field."""

import importlib
import pkgutil

import pytest
from told_models import told_config

import configs
from configs import ablation_faces, classifier_mnist, default, tiny
from vae_jax import config as vae_config
from vae_jax.models.classifier import make_classifier
from vae_jax.models.told import Pair
from vae_jax.models.vae import make_vae
from vae_jax.types import UserError

NAMES = [module.name for module in pkgutil.iter_modules(configs.__path__)]


def test_every_field_of_the_default_has_a_rule_and_no_rule_is_left_over():
    fields = vae_config.flatten(default.get_config())
    required = {name for name in vae_config.FIELDS if not name.startswith(("told", "sweep", "cla"))}
    assert fields.keys() == required


@pytest.mark.parametrize("name", NAMES)
def test_every_config_validates_builds_and_survives_json(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    vae_config.validate(config)
    if vae_config.is_classifier(config):
        make_classifier(config.classifier, config.data.image_shape, labels=2)
    else:
        make_vae(config.model, config.data.image_shape)
    assert vae_config.from_json(vae_config.to_json(config)).to_dict() == config.to_dict()
    assert f"--config=configs/{name}.py" in module.__doc__ or "Not a study" in module.__doc__


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate is nan"),
        ("train.epochs", -5, "config.train.epochs is -5, but must be >= 1"),
        ("train.batch_size", True, "config.train.batch_size is True"),
        ("loss.kl_weight", -1.0, "config.loss.kl_weight is -1.0"),
        ("loss.kl_weight", "3", "config.loss.kl_weight is '3'"),
        ("loss.reduction", "avg", "valid are sum, channel_mean, mean"),
        ("model.encoder.strides", (2, 2), "config.model.encoder.strides has 2 entries"),
        ("model.encoder.strides", (2, 2, 2, 0), r"config.model.encoder.strides\[3\] is 0"),
        ("model.dropout", 1.0, "config.model.dropout is 1.0"),
        ("data.image_shape", (64, 64), "config.data.image_shape"),
        ("data.attributes", ("Smiling",), "config.data.condition"),
        ("seed", 2**32, "config.seed"),
    ],
)
def test_a_mistake_is_named(field, value, message):
    config = default.get_config()
    config.unlock()
    section, _, name = field.rpartition(".")
    target = config
    for part in filter(None, section.split(".")):
        target = target[part]
    del target[name]
    target[name] = value
    with pytest.raises(UserError, match=message):
        vae_config.validate(config)


def test_mirroring_is_refused_where_it_changes_what_the_model_is_told():
    config = default.get_config()
    config.data.augmentation.flip = True
    config.data.condition = "attributes"
    config.data.attributes = ("Smiling", "Bright_Light")
    vae_config.validate(config)
    config.data.attributes = ("Smiling", "Looking_Left")
    with pytest.raises(UserError, match="augmentation.flip is True.*changes Looking_Left"):
        vae_config.validate(config)
    config.data.condition, config.data.attributes = "class", ()
    vae_config.validate(config)
    config.data.name = "mnist"
    with pytest.raises(UserError, match="augmentation.flip is True.*changes digits"):
        vae_config.validate(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"told.kl_weight": (), "told.z_dim": ()}, "config.told is empty"),
        ({"told.kl_weight": (8.0, 0.05)}, "must be two numbers, the smaller one first"),
        ({"told.kl_weight": (0.0, 8.0)}, r"config.told.kl_weight\[0\] is 0.0, but must be > 0"),
        ({"loss.kl_weight": 11.0}, "must lie within config.told.kl_weight, from 0.1 to 10"),
        ({"told.z_dim": (4,)}, "must be two or more rising sizes"),
        ({"told.z_dim": (2, 1, 4)}, "must be two or more rising sizes"),
        ({"told.z_dim": (1, 2)}, "ends with 2, but must end with config.model.z_dim, which is 4"),
        ({"loss.target_rate": 5.0}, "is told its KL weight"),
    ],
)
def test_ranges_that_a_model_is_told_are_checked(fields, message):
    config = told_config()
    vae_config.validate(config)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        vae_config.validate(config)


@pytest.mark.parametrize(("name", "values"), [("kl_weight", (0.5, 1.0)), ("z_dim", (2, 4))])
def test_a_sweep_over_what_a_model_is_told_is_refused(name, values):
    config = told_config([name])
    config.sweep = ablation_faces.get_config().sweep
    config.sweep.kl_weight = config.sweep.z_dim = ()
    vae_config.validate(config)
    config.sweep[name] = values
    with pytest.raises(UserError, match=f"config.sweep.{name} lists .* the model is told {name}"):
        vae_config.validate(config)


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        ([], Pair(kl_weight=2.0), "--kl_weight=2: this model was trained with kl_weight 3 and"),
        ([], Pair(z_dim=2), "--z_dim=2: this model was trained with z_dim 4 and answers for no"),
        (["z_dim"], Pair(kl_weight=2.0), "trained with kl_weight 3 and"),
        (["kl_weight"], Pair(kl_weight=11.0), "--kl_weight=11: .* for kl_weight 0.1 to 10 and"),
        (["z_dim"], Pair(z_dim=5), "--z_dim=5: this model was trained for z_dim 1 to 4 and"),
    ],
)
def test_a_pair_that_a_model_was_not_trained_for_is_refused(names, asked, message):
    config = told_config(names) if names else tiny.get_config()
    with pytest.raises(UserError, match=message):
        vae_config.told_pair(config, asked)


def test_what_is_not_asked_for_is_as_in_the_config():
    assert vae_config.told_pair(tiny.get_config(), Pair()) is None
    assert vae_config.told_pair(told_config(), Pair(kl_weight=0.5)) == (0.5, 4)
    assert vae_config.told_pair(told_config(), Pair(z_dim=2)) == (3.0, 2)


def test_unknown_and_missing_fields_are_named():
    config = default.get_config()
    config.train.bach_size = 3
    with pytest.raises(UserError, match="config.train.bach_size is not a field"):
        vae_config.validate(config)
    config = default.get_config()
    del config.train.epochs
    with pytest.raises(UserError, match="config.train.epochs is missing; configs/default.py"):
        vae_config.validate(config)


@pytest.mark.parametrize(
    ("example", "field"), [(ablation_faces, "sweep.mode"), (classifier_mnist, "classifier.dense")]
)
def test_an_optional_section_that_is_given_is_whole(example, field):
    config = example.get_config()
    section, name = field.split(".")
    del config[section][name]
    with pytest.raises(UserError, match=f"{field} is missing; configs/{example.__name__[8:]}"):
        vae_config.validate(config)


def test_a_sweep_may_leave_out_what_it_is_not_swept_in():
    config = ablation_faces.get_config()
    del config.sweep.learning_rate
    vae_config.validate(config)


def test_every_numeric_rule_bounds_its_field():
    for name, field in vae_config.FIELDS.items():
        if field.kind in (int, float):
            assert max(field.low, field.above) > float("-inf"), name


def test_strides_that_cannot_meet_the_image_are_refused():
    config = default.get_config()
    config.data.image_shape = (60, 60, 3)
    with pytest.raises(UserError, match="4x4 -> 8x8 -> 16x16 -> 32x32 -> 64x64.*60x60"):
        make_vae(config.model, config.data.image_shape)


def test_digest_changes_with_any_field():
    config = default.get_config()
    before = vae_config.digest(config)
    config.loss.sigma = 0.2
    assert vae_config.digest(config) != before
    assert len(before) == 16

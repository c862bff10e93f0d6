"""The classifier: its loss, its accuracy, and a run through the common loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classifier_mnist
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.data.splits import open_splits
from vae_jax.run import open_classifier, open_run, predict
from vae_jax.run_folder import read_rows, write_config
from vae_jax.train.classification import accuracy_table, classification_terms, classifier_task
from vae_jax.train.persistence import restore
from vae_jax.train.trainer import fit
from vae_jax.types import UserError


def quiet(*_):
    pass


@pytest.fixture
def config(tiny_store):
    """Attributes 'Red' and 'Blue' of the tiny store, which tint its images."""
    config = classifier_mnist.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.data.image_shape, config.data.validation_count = (16, 16, 3), 0
    config.data.condition, config.data.attributes = "attributes", ("Red", "Blue")
    config.classifier.filters, config.classifier.strides = (4, 8), (2, 2)
    config.classifier.kernel_sizes, config.classifier.padding = (3, 3), ("same", "same")
    config.classifier.dense = (16,)
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-2, "constant"
    config.train.batch_size, config.train.epochs = 8, 12
    config.eval.batch_size = 4
    return config


def test_exclusive_classes():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [9.0, 9.0, 9.0]])
    targets = np.eye(3)[[0, 1, 2]]
    terms = classification_terms(*map(jnp.asarray, (logits, targets, np.array([1.0, 1.0, 0.0]))))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert float(terms["loss"]) == pytest.approx(-(log_p[0, 0] + log_p[1, 1]) / 2, rel=1e-6)
    assert float(terms["accuracy"]) == 0.5


def test_independent_attributes():
    logits = np.array([[2.0, -1.0], [0.5, 3.0], [-9.0, 9.0]])
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    weights = np.array([1.0, 1.0, 0.0])
    terms = classification_terms(*map(jnp.asarray, (logits, targets, weights)), ("a", "b"))
    p = 1 / (1 + np.exp(-logits[:2]))
    nll = -(targets[:2] * np.log(p) + (1 - targets[:2]) * np.log(1 - p)).sum(axis=1)
    assert float(terms["loss"]) == pytest.approx(nll.mean(), rel=1e-6)
    assert [float(terms[f"accuracy{k}"]) for k in ("_a", "_b", "")] == [0.5, 1.0, 0.75]


def test_a_run_learns_is_logged_and_opens(config, tmp_path):
    said = []
    fit(config, tmp_path, said.append)
    rows = [row for row in read_rows(tmp_path) if row["split"] == "test"]
    assert rows[-1]["accuracy"] == pytest.approx(
        (rows[-1]["accuracy_Red"] + rows[-1]["accuracy_Blue"]) / 2
    )
    assert rows[-1]["accuracy"] > 0.9 and rows[-1]["images"] == 11
    assert "predicts   attributes: Red, Blue" in said[0] and "accuracy" in said[-1]

    run = open_classifier(tmp_path)
    assert run.label_names == ("Red", "Blue") and run.step == 60
    test = open_splits(config.data).test
    probabilities = predict(run, test.take(np.arange(11)))
    correct = (probabilities > 0.5) == test.labels[:, [0, 2]]
    assert correct.mean(axis=0).tolist() == pytest.approx(
        [rows[-1]["accuracy_Red"], rows[-1]["accuracy_Blue"]]
    )
    lines = accuracy_table(config, rows[-1], test).splitlines()
    share = test.labels[:, 0].mean()
    assert lines[0].endswith("on 11 images") and len(lines) == 3
    assert f"commonest answer: {max(share, 1 - share):.2%}" in lines[1]
    with pytest.raises(UserError, match="holds a classifier"):
        open_run(tmp_path)


def test_resumed_equals_uninterrupted_bit_for_bit(config, tmp_path):
    config.classifier.dropout, config.classifier.norm, states = 0.5, "batch", []
    for name, epochs in (("whole", (2,)), ("resumed", (1, 2))):
        for count in epochs:
            config.train.epochs = count
            fit(config, tmp_path / name, quiet)
        task = classifier_task(config, open_splits(config.data))
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            states.append(restore(checkpoints, task.init_state)[0])
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert int(states[0].step) == 10


def test_the_wrong_kind_of_run_is_refused(config, tiny_config, tmp_path):
    write_config(tmp_path, tiny_config)
    with pytest.raises(UserError, match="holds a run, but a classifier"):
        open_classifier(tmp_path)
    config.data.condition, config.data.attributes = "none", ()
    with pytest.raises(UserError, match="'class' or 'attributes'"):
        fit(config, tmp_path / "d", quiet)

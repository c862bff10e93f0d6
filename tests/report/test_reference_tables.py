"""Published rows beside ours; the published numbers themselves add up."""

import json

import pytest

from vae_jax.report.reference_tables import PUBLISHED, comparison, markdown_table


def row(split, epoch, recon, kl_weighted):
    loss = recon + kl_weighted
    values = {"recon": recon, "kl_weighted": kl_weighted, "loss": loss, "kl": 9.0, "images": 60_000}
    return {"split": split, "epoch": epoch} | values


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parts_add_up_to_the_published_loss(name):
    for recon, kl_weighted, loss in PUBLISHED[name].rows.values():
        assert recon + kl_weighted == pytest.approx(loss, abs=3e-4)  # printed with 4 decimals


def test_rows_stand_side_by_side_and_the_last_epoch_is_added():
    rows = [row("train", 3, 0.11, 0.0040001), row("test", 3, 0.5, 0.5), row("train", 8, 0.1, 0.005)]
    compared = comparison("mnist_z12", rows)
    assert json.loads(json.dumps(compared))["test"]["3"]["loss"] == 1.0
    assert compared["train_images"] == 60_000
    assert compared["train"][3]["kl_weighted"] == 0.0040001
    lines = markdown_table(compared).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| 3 | 0.1091 | 0.1100 | 0.0044 | 0.0040 | 0.1135 | 0.1140 |"
    assert lines[3] == "| 4 | 0.1070 |  | 0.0044 |  | 0.1114 |  |"
    assert lines[-1] == "| 8 |  | 0.1000 |  | 0.0050 |  | 0.1050 |"

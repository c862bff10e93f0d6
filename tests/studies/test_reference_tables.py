"""Published rows beside ours; the published numbers themselves add up."""

import pytest

from vae_jax.report.page import write_study
from vae_jax.studies.reference_tables import PUBLISHED, comparison, comparison_table, page


def row(split, epoch, recon, kl_weighted):
    loss = recon + kl_weighted
    values = {"recon": recon, "kl_weighted": kl_weighted, "loss": loss, "kl": 9.0, "images": 60_000}
    return {"split": split, "epoch": epoch} | values


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parts_add_up_to_the_published_loss(name):
    for recon, kl_weighted, loss in PUBLISHED[name].rows.values():
        assert recon + kl_weighted == pytest.approx(loss, abs=3e-4)  # printed with 4 decimals


def test_every_seed_stands_beside_its_median_range_and_the_published_row(tmp_path):
    runs = {
        seed: [
            row("train", 2, recon, 3.0),
            row("test", 2, recon + 1, 3.0),
            row("train", 8, recon - 9, 3.0),
        ]
        for seed, recon in {0: 186.5, 1: 188.0, 2: 167.0}.items()
    }
    compared = comparison("keras_example", runs)
    assert compared["test"][1][2]["loss"] == 192.0 and compared["train_images"] == 60_000
    table = comparison_table(compared, "recon")
    by_epoch = {line[0]: line for line in table.rows}
    assert by_epoch["2"] == [
        "2", "186.47", "186.50", "167.00 to 188.00", "inside", "186.50", "188.00", "167.00",
    ]  # fmt: skip
    assert by_epoch["1"] == ["1", "214.57", "", "", "", "", "", ""]
    assert by_epoch["8"][:4] == ["8", "", "177.50", "158.00 to 179.00"]
    kl = {line[0]: line for line in comparison_table(compared, "kl_weighted").rows}
    assert kl["2"][4] == "outside"
    write_study(tmp_path, page({"keras_example": compared}), compared)
    assert "Results depend on the seed" in (tmp_path / "index.html").read_text()

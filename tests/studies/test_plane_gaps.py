"""Gaps between a told model and members that were trained alone, against made-up sweeps."""

from dataclasses import replace

import pytest
from made_up_sweeps import member, sweep_of

from vae_jax.studies.cells import make_cells
from vae_jax.studies.plane_gaps import find_gaps, gap_sentence, recon_at_rate


def test_the_gap_is_in_the_objective_of_the_members():
    """R = 100 + 5 w + seed and K = 40 / (1 + w), so at w = 1 the plane is better by 10 nats."""
    alone = [member(w, 8, seed) for w in (0.0, 1.0) for seed in (0, 1, 2)]
    better = [replace(m, test=m.test | {"recon": m.test["recon"] - 10}) for m in alone]
    ours = sweep_of([m for m in better if m.kl_weight == 1.0 and m.seed == 1])
    outside, inside = find_gaps(ours, sweep_of(alone))
    assert (inside.z_dim, inside.kl_weight, inside.asked, inside.inside) == (8, 1.0, 1.0, True)
    assert inside.objective.alone == pytest.approx(106 + 3 * 20)  # beta is 3 w
    assert inside.objective.ours == pytest.approx(106 - 10 + 3 * 20)
    assert inside.objective.spread == pytest.approx(1.0) and inside.objective.seeds == 3
    assert inside.objective.relative == pytest.approx(-10 / 166)
    assert inside.recon is not None and inside.recon.ours - inside.recon.alone == pytest.approx(-10)
    # Weight 0 was not trained for: the nearest one answers, and counts in no summary.
    assert (outside.kl_weight, outside.asked, outside.inside) == (0.0, 1.0, False)
    assert outside.objective.ours == pytest.approx(96) and outside.recon is None
    assert "-6.02% at worst" in gap_sentence([outside, inside])
    assert "1 of 1 cells" in gap_sentence([outside, inside])


def test_r_at_equal_k_lies_on_the_line_between_cells():
    cells = make_cells([member(w, 8, 0) for w in (0.0, 1.0, 3.0)])  # K 40, 20, 10; R 100, 105, 115
    assert recon_at_rate(cells, 30.0) == pytest.approx(102.5)
    assert recon_at_rate(cells, 10.0) == pytest.approx(115.0)
    assert recon_at_rate(cells, 41.0) is None

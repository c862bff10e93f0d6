"""The one look of all charts."""

import numpy as np

from vae_jax.report import charts
from vae_jax.report.charts import COLOURS


def test_a_chart_has_its_size_and_its_grid_and_no_display():
    def chart():
        figure, axes = charts.new_chart(4, 3, 1, 2)
        assert axes.shape == (1, 2)
        axes[0, 0].plot([0, 1], [0, 1], color=COLOURS[1])
        return charts.drawn(figure)

    first, second = chart(), chart()
    assert first.size == (440, 330) and first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    pixels = np.asarray(first).reshape(-1, 3).astype(int)
    drawn = np.array([int(COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(pixels - drawn).max(axis=1) < 8).sum() > 50  # the line, in its colour
    assert (pixels == 255).all(axis=1).mean() > 0.5

"""Charts say what they were given: lines, labels and text of the figures, before they are drawn."""

import base64
import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from vae_jax.report import charts, evaluation, latent, random_latents
from vae_jax.report.charts import COLOURS


@pytest.fixture
def undrawn(monkeypatch):
    """Charts are returned as figures."""
    for module in (latent, random_latents):
        monkeypatch.setattr(module, "drawn", lambda figure: figure)


def lines(axis):
    """Points `[N, 2]` of the lines of an axis by label."""
    return {line.get_label(): np.column_stack(line.get_data()) for line in axis.lines}


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


SUMMARY = {
    "images": 1234, "z_dim": 3, "kl": 6.5, "active_units": 2, "offset_norm": 0.25, "mmd": 0.01,
    "active_mask": [True, False, True], "kl_per_dimension": [1.5, 0.0, 5.0],
    "spectrum": [2.0, 1.0, 0.5], "spectrum_of_means": [1.5, 0.5, 0.0001],
    "skewness": [0.1, -0.2, 0.0], "excess_kurtosis": [0.3, 0.0, -0.1],
    "mahalanobis": {"chi_square": [1.0, 2.0], "observed": [1.1, 2.5]},
    "variance_of_means": [0.9, 0.0, 0.8], "mean_variance": [0.1, 1.0, 0.2],
    "offset": [0.5, -1.0, 2.0],
    "kl_decomposition": {"mutual_information": 5.0, "total_correlation": 1.0, "dimension_kl": 0.5},
    "radius": {"mean": 1.6, "std": 0.3, "ks_distance": 0.125},
    "radius_of_means": {"mean": 1.2, "std": 0.4, "ks_distance": 0.25},
    "radius_prior": {"mean": 1.6, "std": 0.7, "ks_distance": 0.0},
}  # fmt: skip


def test_six_views_of_the_posterior(undrawn):
    law = (np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.6, 0.4]))
    figure = latent.posterior_chart(SUMMARY, np.full(50, 1.5), np.full(50, 1.2), law)
    radius, spectrum, kl, shape, quantiles, variance = figure.axes
    np.testing.assert_array_equal(lines(radius)["N(0, I): chi law"], np.column_stack(law))
    assert sum(bar.get_height() * bar.get_width() for bar in radius.patches) == pytest.approx(2)
    assert lines(spectrum)["aggregate posterior"].tolist() == [[1, 2], [2, 1], [3, 0.5]]
    assert spectrum.get_yscale() == "log"
    assert kl.get_title() == "KL by dimension (2 of 3 active)"
    # Largest KL first; a dimension that is not active is grey.
    assert [bar.get_height() for bar in kl.patches] == [5.0, 1.5, 0.0]
    colours = [to_hex(bar.get_facecolor()) for bar in kl.patches]
    assert colours == [COLOURS[0], COLOURS[0], "#bbbbbb"]
    np.testing.assert_allclose(shape.lines[0].get_data()[0], SUMMARY["skewness"])
    assert lines(quantiles)["q(z)"].tolist() == [[1.0, 1.1], [2.0, 2.5]]
    # In the order of the KL: variance of the means, mean variance, squared offset.
    drawn = [line.get_ydata().tolist() for line in variance.lines if len(line.get_ydata())]
    assert drawn == [[0.8, 0.9, 0.0], [0.2, 0.1, 1.0], [4.0, 0.25, 1.0]]


def test_points_are_coloured_by_group(undrawn):
    points = np.arange(10.0).reshape(5, 2)
    groups = np.array([0, 1, 0, 1, 1])
    (axis,) = latent.scatter_chart(points, groups, ("no hat", "hat"), ("z 0", "z 1")).axes
    assert lines(axis)["hat"].tolist() == points[groups == 1].tolist()
    assert lines(axis)["no hat"].tolist() == points[groups == 0].tolist()
    assert axis.lines[0].get_color() != axis.lines[1].get_color()
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("z 0", "z 1")
    (axis,) = latent.scatter_chart(points, None, (), ("a", "b")).axes
    assert len(axis.lines) == 1 and axis.get_legend() is None


def test_change_by_block(undrawn):
    (axis,) = latent.block_chart({1: 0.1, 4: 0.2}).axes
    assert axis.lines[0].get_xydata().tolist() == [[1, 0.1], [4, 0.2]]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "4"]


def test_rows_of_the_latent_pages():
    rows = dict(latent.summary_rows(SUMMARY))
    assert rows["images"] == "1,234" and rows["KL, nats per image"] == "6.50"
    assert rows["total correlation, nats"] == "1.00"
    assert rows["radius of q(z)"] == "1.60 +- 0.30"
    assert rows["radius of q(z): distance to the chi law"] == "0.125"
    assert "radius of N(0, I): distance to the chi law" not in rows
    figures = {"mean_step": 0.05, "jump": 1.5, "path_length": 1.25, "second_difference": 0.1}
    fade, line = latent.smoothness_rows({"fade": figures, "line": figures | {"least_radius": 0.7}})
    assert fade == ["fade", "0.0500", "1.50", "1.25", "0.10", ""]
    assert line[-1] == "0.70" and len(line) == len(latent.SMOOTHNESS_HEADER)


def test_metrics_that_are_there_are_shown_in_their_format():
    metrics = {"elbo": -101.126, "iw_samples": 5000, "kl": None, "fid": 12.0, "z_dim": 8}
    assert evaluation.metric_rows(metrics, evaluation.LIKELIHOOD) == [
        ["elbo", "ELBO, nats per image", "-101.13"],
        ["iw_samples", "importance samples", "5,000"], ["z_dim", "of", "8"],
    ]  # fmt: skip
    assert evaluation.metric_rows(metrics, evaluation.SAMPLES)[0][::2] == ["fid", "12.00"]


def test_the_evaluation_page(tmp_path):
    picture = Image.new("RGB", (3, 2), (10, 200, 30))
    metrics = {"iw_bound": -86.5, "iw_samples": 50, "entropy_floor": 2.0}
    metrics["published_nll"] = {"IWAE <2016>": 84.78}
    evaluation.write_evaluation(
        tmp_path / "page.html", metrics, {"step": "7"}, {"Samples": ("Of seed 3", picture)}
    )
    html = (tmp_path / "page.html").read_text()
    assert html.index("Likelihood") < html.index("Published") < html.index("Reconstructions")
    assert "IWAE &lt;2016&gt;" in html and "84.78" in html and "86.50" in html
    assert evaluation.LEVELS_NOTE.split(".")[0] in html  # grey levels: the floor is above 1 nat
    data = html.split("data:image/png;base64,")[1].split('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert shown.size == (3, 2) and shown.getpixel((2, 1)) == (10, 200, 30)
    evaluation.write_evaluation(tmp_path / "page.html", {"entropy_floor": 0.0}, {}, {})
    html = (tmp_path / "page.html").read_text()
    assert "Published" not in html and evaluation.LEVELS_NOTE.split(".")[0] not in html


def row(name, kind, radius, distance):
    return {
        "name": name, "kind": kind, "radius": radius, "sliced_wasserstein": distance,
        "frechet_pixels": 2 * distance, "re_encoded": 3.0, "re_encoded_relative": 0.5,
    }  # fmt: skip


FIGURES = {
    "ae": [row("(0, 1)", "orthant", 1.0, 0.4), row("N(0, I)", "normal", 8.0, 0.8)],
    "vae": [row("(0, 1)", "orthant", 1.0, 0.2), row("N(0, I)", "normal", 8.0, 0.1)],
}
FLOORS = {
    "ae": {"sliced_wasserstein": 0.05, "frechet_pixels": 0.11},
    "vae": {"sliced_wasserstein": 0.06, "frechet_pixels": 0.12},
}


def test_quality_against_radius_has_a_colour_a_run_and_a_marker_a_kind(undrawn):
    wasserstein, frechet, again = random_latents.radius_chart(FIGURES, FLOORS).axes
    points = [
        line for line in wasserstein.lines if line.get_marker() in "oD" and len(line.get_xdata())
    ]
    found = {(line.get_color(), line.get_marker()): line.get_xydata().tolist() for line in points}
    assert found == {
        (COLOURS[0], "o"): [[1.0, 0.4]], (COLOURS[0], "D"): [[8.0, 0.8]],
        (COLOURS[1], "o"): [[1.0, 0.2]], (COLOURS[1], "D"): [[8.0, 0.1]],
    }  # fmt: skip
    dotted = [line.get_ydata()[0] for line in wasserstein.lines if line.get_linestyle() == ":"]
    assert dotted == [0.05, 0.06]
    assert [axis.get_xscale() for axis in (wasserstein, frechet, again)] == ["log"] * 3
    assert not any(line.get_linestyle() == ":" for line in again.lines)  # no floor for this one
    names = [text.get_text() for text in wasserstein.get_legend().get_texts()]
    assert names == ["ae", "vae"]


def test_the_table_of_rows_ends_with_the_floor():
    header, table = random_latents.rows_table(FIGURES, FLOORS)
    assert header[:3] == ["points", "ae: |z|", "sliced W."] and len(header) == 11
    assert table[1] == ["N(0, I)", "8.0", "0.800", "1.60", "3.0", "0.50",
                        "8.0", "0.100", "0.20", "3.0", "0.50"]  # fmt: skip
    assert table[-1][0] == "real images to real images"
    assert table[-1][1:6] == ["", "0.050", "0.11", "", ""]
    fitted = {"ae": FIGURES["ae"][:1], "vae": [row("(0, 2)", "orthant", 2.0, 0.1)]}
    assert random_latents.rows_table(fitted, FLOORS)[1][0][0] == "(0, 1) / (0, 2)"


def test_a_sheet_has_a_row_a_name_and_cuts_it_to_the_columns():
    dark, light = np.zeros((5, 64, 64, 1)), np.ones((5, 64, 64, 1), np.float32)
    sheet = random_latents.labelled_sheet([("dark", dark), ("light", light)], 3)
    width = random_latents.LABEL_WIDTH
    strip = 3 * 66 + 2
    assert sheet.size == (width + strip, 2 * 68)
    pixels = np.asarray(sheet.convert("L"))
    assert (pixels[2:66, width + 2 : width + 66] == 0).all()
    assert (pixels[70:134, width:] == 255).all()
    assert pixels[20:48, :width].min() < 100 and pixels[88:116, :width].min() < 100  # names

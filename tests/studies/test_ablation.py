"""The page of sweeps: verdicts that rest on seeds, merged sweeps, hostile texts shown as text."""

import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up_sweeps import SEEDS, member, sweep_of

from vae_jax.report.page import write_study
from vae_jax.report.pictures import image_grid, save_png
from vae_jax.studies import ablation
from vae_jax.studies.cells import (
    choose,
    closed_share,
    figures_table,
    make_cells,
    priors_table,
    share_sentence,
    size_table,
    verdict_table,
)
from vae_jax.studies.sweep_results import merge_results, read_results
from vae_jax.types import UserError

VOID = {"meta", "img", "link", "br", "hr"}


def grid(seeds=SEEDS, folder=Path("members")):
    return [member(w, z, s, folder) for z in (2, 8) for w in (0.0, 1.0, 5.0) for s in seeds]


def plain(text):
    """A cell without its no-break spaces."""
    return text.replace("\u00a0", " ")


def test_cells_average_their_seeds():
    cells = make_cells([*grid(), member(9.0, 8, 0, status="diverged", test={}, validation={})])
    assert [(c.z_dim, c.kl_weight, len(c.members)) for c in cells] == [
        (z, w, 5) for z in (2, 8) for w in (0.0, 1.0, 5.0)
    ]
    recon = cells[0].interval("recon")
    reach = 2.776 * np.sqrt(2.5 / 5)  # Student's t for 4 degrees of freedom
    assert (recon.mean, recon.low) == pytest.approx((102.0, 102.0 - reach), abs=1e-3)
    assert cells[0].interval("nothing") is None
    table = figures_table(cells, ("beta", "recon"), "")
    assert plain(table.rows[0][2]).endswith("102.0 ± 1.6 [100.0, 104.0]")


def test_the_best_is_chosen_on_validation_and_shown_on_test():
    members = grid()
    for i, one in enumerate(members):  # On test, KL weight 0 looks better by luck.
        if one.kl_weight == 0 and one.z_dim == 2:
            members[i] = replace(
                one, test=one.test | {"sliced_wasserstein": 0.001 + one.seed / 1e4}
            )
    cells = make_cells(members)
    choice = choose(cells, "sliced_wasserstein")
    assert (choice.split, choice.best.kl_weight) == ("validation", 1.0)
    (row,) = [r for r in verdict_table(cells).rows if "sliced" in r[0]]
    assert "w = 1" in plain(row[1]) and row[3] == "0.0200"
    assert "Z = 2, w = 0" in plain(row[4])  # Not worse on test, so not dismissed.
    without = [replace(one, validation={}) for one in members]
    choice = choose(make_cells(without), "sliced_wasserstein")
    assert (choice.split, choice.best.kl_weight) == ("test", 0.0)


def test_what_seeds_do_not_tell_apart_is_not_resolved():
    cells = make_cells(grid())
    choice = choose(cells, "sliced_wasserstein")
    assert [(c.z_dim, c.kl_weight) for c in choice.unresolved] == [
        (10 - choice.best.z_dim, 1.0)  # the other Z; other weights are clearly worse
    ]
    assert choose(cells, "psnr").best.z_dim == 8
    table = size_table(cells)
    by_size = {plain(row[0]): row for row in table.rows}
    other = by_size[f"Z = {10 - choice.best.z_dim}"]
    assert other[table.header.index("sliced Wasserstein") + 1].endswith("not resolved")
    assert by_size["Z = 2"][table.header.index("PSNR [dB]") + 1].endswith("worse")
    one_seed = make_cells(grid(seeds=(0,)))
    assert len(choose(one_seed, "psnr").unresolved) == 5
    assert "one seed: not resolved" in str(size_table(one_seed).rows)


def test_fitted_priors_are_set_against_the_normal_one():
    members = []
    for one in grid():
        base = one.test["pixels_frechet"]
        more = {"pixels_frechet_gaussian": base - 0.6, "pixels_frechet_codes": base - 0.8}
        members.append(replace(one, test=one.test | more))
    cells = make_cells(members)
    assert closed_share(cells[0], "pixels_frechet", "_gaussian") == pytest.approx(0.75)
    assert closed_share(cells[0], "pixels_frechet", "_mixture") is None
    table = priors_table(cells, "pixels_frechet")
    assert list(table.header[1:]) == [
        "N(0, I)", "fitted Gaussian", "decoded codes", "gap closed by fitted Gaussian"
    ]  # fmt: skip
    assert [row[4] for row in table.rows] == ["75%"] * 6
    scattered = [  # A gap of 0.1 in the mean, of either sign from seed to seed, is none.
        replace(one, test=one.test | {"pixels_frechet_codes": base - 0.1 + (-1) ** one.seed})
        for one in members
        for base in [one.test["pixels_frechet"]]
    ]
    (first, *_) = make_cells(scattered)
    assert closed_share(first, "pixels_frechet", "_gaussian") is None
    headings = [section.heading for section in ablation.page([sweep_of(members)]).sections]
    assert "N(0, I) against fitted priors" in headings
    plain_page = ablation.page([sweep_of(grid())])
    assert "N(0, I) against fitted priors" not in [s.heading for s in plain_page.sections]


def test_a_share_above_3_percent_counts_only_outside_its_interval():
    sentence = share_sentence(make_cells(grid()))
    assert "KL weight 5 is the smallest" in sentence and "not resolved" not in sentence
    noisy = [
        replace(m, test=m.test | {"kl_share": 0.035 + 0.02 * (m.seed - 2)})
        for m in grid()
        if m.kl_weight == 5
    ]
    assert "not resolved" in share_sentence(make_cells(noisy))
    low = [m for m in grid() if m.kl_weight < 2]
    assert "No KL weight gives all models" in share_sentence(make_cells(low))


class Html(HTMLParser):
    """Checks nesting and collects tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of 2 x 3 x 2 members and one that diverged, with hostile names and reasons."""
    tmp_path = tmp_path_factory.mktemp("sweep")
    rows = grid(seeds=(0, 1), folder=tmp_path / "members")
    for one in rows:
        images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
        for kind in ("samples", "reconstructions"):
            save_png(one.folder / f"{kind}.png", image_grid(images, 2), {})
    reason = "<script>alert(1)</script> & not finite"
    bad = member(
        9.0, 8, 0, tmp_path / "members", status="diverged", reason=reason, test={}, validation={}
    )
    evil = {"data.path": "'\"><img src=http://evil.example/x.png>'"}
    result = sweep_of([*rows, bad], differences=evil, workdirs=(str(tmp_path),))
    out = tmp_path / "ablation"
    write_study(out, ablation.page([result]), ablation.numbers([result]))
    return tmp_path, result


def test_the_page_shows_everything_and_hostile_text_as_text(written):
    workdir, _ = written
    html = Html((workdir / "ablation" / "index.html").read_text())
    assert not {"script", "b"} & {tag for tag, _ in html.tags}
    assert "<script>alert(1)</script> & not finite" in html.text and "evil.example" in html.text
    images = [attributes for tag, attributes in html.tags if tag == "img"]
    # 6 charts, samples and reconstructions of 2 x 3 cells, spectra and curves of 2 sizes.
    assert len(images) == 6 + 6 + 6 + 2 + 2
    for attributes in images:
        assert (workdir / "ablation" / attributes["src"]).is_file() and attributes["alt"]


def test_the_same_sweep_is_read_from_its_results(written):
    workdir, result = written
    (read,) = merge_results([read_results(workdir)])
    assert read.members == result.members and read.differences == result.differences


def test_a_picture_that_is_none_is_one_sentence(tmp_path):
    one = member(1.0, 2, 0, tmp_path)
    one.folder.mkdir()
    (one.folder / "samples.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"samples.png is not a readable picture .*; draw it anew"):
        ablation.page([sweep_of([one])])


def test_sweeps_of_one_study_are_merged_and_others_are_not(tmp_path):
    first = sweep_of([member(w, 2, s) for w in (1.0, 5.0) for s in SEEDS[:2]])
    changed = member(5.0, 2, 1, step=99)
    more = sweep_of([changed, member(7.0, 2, 0)], workdirs=("runs/more",))
    more.config.loss.kl_weight = 7.0
    other = sweep_of([member(1.0, 2, 0)], workdirs=("runs/other",))
    other.config.train.epochs = 9
    merged = merge_results([first, more, other])
    assert [len(result.members) for result in merged] == [5, 1]
    assert merged[0].seconds["training"] == 150.0 and merged[0].workdirs == ("runs/it", "runs/more")
    assert [m.step for m in merged[0].members if m.name == changed.name] == [99]
    page = ablation.page(merged)
    names = [picture.name for section in page.sections for picture in section.pictures]
    assert len(set(names)) == len(names)
    write_study(tmp_path, page, ablation.numbers(merged))
    assert len(json.loads((tmp_path / "results.json").read_text())["results"]["sweeps"]) == 2


@pytest.mark.slow
def test_a_real_browser_shows_it_without_an_error(written, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "this test needs Chromium or Chrome"
    path = written[0] / "ablation" / "index.html"
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", "--window-size=500,3000", f"--user-data-dir={tmp_path / 'user'}",
    ]  # fmt: skip
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [browser, *options, f"--screenshot={picture}", path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and picture.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr, done.stderr

"""The ablation report: means over seeds, merged sweeps, one self-contained and escaped page."""

import copy
import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from vae_jax.report import ablation_tables as tables
from vae_jax.report.ablation import write_report
from vae_jax.report.pictures import image_grid, save_png
from vae_jax.types import UserError

VOID = {"meta", "img", "link", "br", "hr"}


def member(kl_weight, z_dim, seed, **rest):
    kl = 40.0 / (1.0 + kl_weight) + seed
    row = {
        "name": f"w{kl_weight:g}-z{z_dim}-lr0.001-s{seed}",
        "kl_weight": kl_weight, "z_dim": z_dim, "learning_rate": 1e-3, "seed": seed,
        "status": "finished", "reason": "", "step": 10, "seconds": 1.5, "config_digest": "ab" * 8,
        "beta": 3 * kl_weight, "recon": 100.0 + 5 * kl_weight, "kl": kl, "elbo": -100.0 - kl,
        "kl_share": 0.01 * kl_weight, "active_units": z_dim, "psnr": 20.0 + z_dim - kl_weight,
        "kl_per_dimension": [kl / z_dim] * z_dim, "sliced_wasserstein": 0.1 + 0.01 * kl_weight,
        "radius": {"mean": 1.5, "std": 0.2, "prior_mean": 1.25, "prior_std": 0.6},
        "covariance": {"offset_norm": 0.1, "largest": 2.0, "median": 1.0, "smallest": 0.5,
                       "effective_dimensions": 1.8},
        "curves": {"test": {"epoch": [1, 2], "loss": [9.0, 8.0], "recon_nats": [130.0, 101.0],
                            "kl": [50.0, None]}},
        "pictures": {"samples": "samples.png", "reconstructions": "samples.png"},
    }  # fmt: skip
    return row | rest


@pytest.fixture
def sweep(tmp_path):
    """Results of 2 x 2 x 2 members and one that diverged, with a hostile name and reason."""
    rows = [member(w, z, s) for z in (2, 8) for w in (0.0, 5.0) for s in (0, 1)]
    bad = member(9.0, 8, 0, status="diverged", reason="<script>alert(1)</script> & not finite")
    for name in ("kl_per_dimension", "radius", "covariance", "pictures", "recon", "kl"):
        del bad[name]
    config = {
        "seed": 0, "data": {"name": "<b>faces</b>", "path": "x", "image_shape": [16, 16, 3]},
        "loss": {"kl_weight": 1.0, "likelihood": "bernoulli", "reduction": "channel_mean"},
        "model": {"z_dim": 4}, "optimizer": {"learning_rate": 1e-3}, "train": {"epochs": 2},
        "sweep": {"seed": [0, 1]},
    }  # fmt: skip
    results = {
        "schema": 1, "workdir": str(tmp_path), "created": "2026-01-01", "config": config,
        "config_digest": "cd" * 8, "versions": {"jax": "0.10"}, "device": "1 x cpu",
        "train_images": 1000, "test_images": 100, "members": [*rows, bad],
        "quality": {"images": 100, "sample_seed": 0, "sliced_wasserstein_floor": 0.05},
        "seconds": {"training": 75.0, "measuring": 3.0},
        "differences_from_default": {"data.path": "'\"><img src=http://evil.example/x.png>'"},
    }  # fmt: skip
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
    save_png(tmp_path / "samples.png", image_grid(images, 2), {})
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path, results


class Page(HTMLParser):
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


def test_seeds_are_averaged_and_their_spread_is_kept(sweep):
    rows = tables.seed_spread(sweep[1]["members"])
    assert [(row["z_dim"], row["kl_weight"], row["seeds"]) for row in rows] == [
        (2, 0.0, [0, 1]), (2, 5.0, [0, 1]), (8, 0.0, [0, 1]), (8, 5.0, [0, 1]),
    ]  # fmt: skip
    kl = rows[0]["kl"]
    assert (kl["mean"], kl["low"], kl["high"]) == (40.5, 40.0, 41.0)
    assert kl["std"] == pytest.approx(np.std([40.0, 41.0], ddof=1))
    header, cells = tables.spread_table(rows[:1])
    assert cells[0][header.index("KL [nats]")] == "40.5 ± 0.7"
    assert cells[0][header.index("radius (prior)")] == "1.50 (1.25)"
    alone = tables.seed_spread(sweep[1]["members"][:1])[0]
    assert alone["kl"]["std"] is None


def test_findings_name_the_best_with_their_numbers(sweep):
    rows = tables.seed_spread(sweep[1]["members"])
    text = " ".join(tables.findings(rows, 0.05))
    assert "Best ELBO: -107.2 nats per image (KL weight 5, Z = 2)" in text
    assert "Best reconstructions: 28.00 dB (KL weight 0, Z = 8)" in text
    assert "sliced Wasserstein 0.1000 (KL weight 0, Z = 2); real against real 0.0500" in text
    assert "22.00 dB (Z = 2), 28.00 dB (Z = 8)" in text
    assert (
        "KL weight 5 is the smallest whose models all have a KL share" in text and "5.00%" in text
    )
    assert tables.findings([], 0.05) == ["No member is finished."]


def test_the_report_is_self_contained_escaped_and_well_formed(sweep):
    workdir, _ = sweep
    path = write_report([workdir], workdir / "report.html")
    text = path.read_text()
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names and "b" in names and "link" not in names
    assert "<script>alert(1)</script> & not finite" in page.text  # As text, not as a tag.
    assert "<b>faces</b>" in page.text and "evil.example" in page.text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    # 5 charts, 2 x 2 weights of samples and reconstructions, spectra and curves of 2 sizes.
    assert len(images) == 5 + 4 + 4 + 2 + 2
    for attributes in images:
        assert attributes["src"].startswith(
            ("data:image/png;base64,", "data:image/svg+xml;base64,")
        )
        assert attributes["alt"]
    for _, attributes in page.tags:
        assert not any(name in attributes for name in ("href", "onload", "onerror", "srcset"))
    assert "url(" not in text and "@import" not in text
    meta = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert any("default-src 'none'" in m.get("content", "") for m in meta)
    assert any(m.get("name") == "viewport" for m in meta) and "@media print" in text


def test_sweeps_of_one_study_are_merged_and_others_are_not(sweep, tmp_path):
    workdir, results = sweep
    more, other = copy.deepcopy(results), copy.deepcopy(results)
    more["members"] = [member(5.0, 2, 1, recon=1.0), member(7.0, 2, 0)]
    more["config"]["loss"]["kl_weight"] = 7.0
    other["config"]["train"]["epochs"] = 9
    studies = tables.merge_studies([results, more, other])
    assert [len(study["members"]) for study in studies] == [10, 9]
    assert studies[0]["seconds"]["training"] == 150.0
    replaced = [row for row in studies[0]["members"] if row["name"] == "w5-z2-lr0.001-s1"]
    assert [row["recon"] for row in replaced] == [1.0]
    folders = [workdir]
    for name, content in (("more", more), ("other", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
        folders.append(tmp_path / name)
    page = Page(write_report(folders, tmp_path / "both.html").read_text())
    assert [tag for tag, _ in page.tags].count("section") == 2


def test_a_report_without_results_says_so(tmp_path):
    with pytest.raises(UserError, match="has no results.json; run experiments.ablation"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "results.json").write_text('{"schema": 0}')
    with pytest.raises(UserError, match="has another format"):
        write_report([tmp_path], tmp_path / "report.html")


@pytest.mark.slow
def test_a_real_browser_shows_it_without_an_error(sweep, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "this test needs Chromium or Chrome"
    workdir, _ = sweep
    path = write_report([workdir], workdir / "report.html")
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

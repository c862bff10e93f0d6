"""Pages: what they hold, that nothing is taken for markup, and that they are all or nothing."""

import json
import math
import re

import pytest
from PIL import Image

from vae_jax.report.page import Page, Picture, Section, Table, text_table, write_study
from vae_jax.types import UserError

DOT = Image.new("RGB", (2, 2))


def page(title="A <title>", name="dot"):
    picture = Picture(name, DOT, "What to look at")
    table = Table(["name", "dB"], [["<b>", "12.5"]], "in decibels")
    section = Section("First", "1 < 2 & <script>", [picture], [table])
    return Page(title, "What was done", [section], {"step": "7"}, "python -m x")


def test_a_study_writes_page_pictures_and_strict_numbers(tmp_path):
    paths = write_study(tmp_path / "deep" / "study", page(), {"a": math.nan, "b": 1.5})
    assert [path.name for path in paths] == ["index.html", "dot.png", "results.json"]
    html = paths[0].read_text()
    for text in ("A &lt;title&gt;", "1 &lt; 2 &amp; &lt;script&gt;", 'src="dot.png"', "<dt>step"):
        assert text in html
    with Image.open(paths[1]) as picture:
        assert picture.text == {"step": "7"}
    found = json.loads(paths[2].read_text(), parse_constant=pytest.fail)
    assert found["results"] == {"a": None, "b": 1.5} and found["facts"] == {"step": "7"}


def test_a_run_links_every_study_made_of_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    DOT.save(tmp_path / "samples.png")
    for name in ("evaluation", "paths"):
        write_study(tmp_path / name, page(name.capitalize()), {})
    html = (tmp_path / "index.html").read_text()
    assert re.findall(r'href="([^"#]*)"', html) == ["evaluation/index.html", "paths/index.html"]
    assert re.findall(r'src="([^"]*)"', html) == ["samples.png"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    write_study(tmp_path, page(), {"a": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*results.json: it is a folder"):
        write_study(tmp_path, page("Another"), {"a": 2})
    (tmp_path / "results.json").rmdir()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == {name: data for name, data in before.items() if name != "results.json"}


@pytest.mark.parametrize("name", ["../x", "a/b", "http://a.example/x", "", ".x", "x?y", "a b"])
def test_a_picture_lies_beside_its_page(name):
    with pytest.raises(ValueError, match="not the name of a picture"):
        Picture(name, DOT, "")


def test_hostile_names_stay_text_in_every_place_of_a_page(tmp_path):
    """As headings, facts, cells and captions: no tag, no attribute, no address comes of them."""
    hostile = "\"'><img src=http://a.example/x onerror=alert(1)><script>x</script>"
    table = Table([hostile], [[hostile]], hostile)
    section = Section(hostile, hostile, [Picture("x", DOT, hostile, hostile)], [table])
    write_study(tmp_path, Page(hostile, hostile, [section], {hostile: hostile}, hostile), {})
    html = (tmp_path / "index.html").read_text().split("</style>")[1]
    tags = re.findall(r"<(\w+)([^<>]*)>", html)
    assert {tag for tag, _ in tags} <= {
        "body", "h1", "h2", "p", "div", "figure", "img", "figcaption", "table", "caption",
        "thead", "tbody", "tr", "th", "td", "code", "dl", "dt", "dd",
    }  # fmt: skip
    (image,) = [attributes for tag, attributes in tags if tag == "img"]
    assert re.fullmatch(r' src="x.png" alt="[^"]*"', image)


def test_a_text_table_is_aligned():
    table = text_table(Table(["name", "dB"], [["a", "1.50"], ["longer", "12.50"]]))
    assert table.splitlines() == ["name       dB", "a        1.50", "longer  12.50"]

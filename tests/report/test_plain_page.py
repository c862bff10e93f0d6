"""Pages and tables: what they hold, and that nothing is taken for markup."""

import math
import re

import pytest

from vae_jax.report.plain_page import Section, text_table, write_page
from vae_jax.report.restoration import restoration_table


def test_a_page_shows_pictures_tables_and_escapes_all_text(tmp_path):
    path = tmp_path / "index.html"
    sections = [
        Section("First", "1 < 2 & <script>", "picture.png"),
        Section("Second", header=["name", "dB"], rows=[["<b>", "12.5"]]),
    ]
    write_page(path, "A <title>", {"step": "7"}, sections)
    html = path.read_text()
    for text in (
        "A &lt;title&gt;", "step: 7", "1 &lt; 2 &amp; &lt;script&gt;", 'src="picture.png"',
        "<th>dB</th>", "<td>&lt;b&gt;</td><td>12.5</td>",
    ):  # fmt: skip
        assert text in html
    assert html.count("<table>") == 1 and html.count("<img") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_a_text_table_is_aligned():
    table = text_table(["name", "dB"], [["a", "1.50"], ["longer", "12.50"]])
    assert table.splitlines() == ["name       dB", "a        1.50", "longer  12.50"]


def test_columns_without_numbers_are_left_out():
    scores = {
        "restored": {"psnr": 20.0, "ssim": math.nan, "psnr_erased": 15.0, "recognised": math.nan},
        "mean": {"psnr": 10.0, "ssim": math.nan, "psnr_erased": math.nan, "recognised": math.nan},
    }
    header, rows = restoration_table(scores)
    assert header == ["", "PSNR [dB]", "PSNR of erased pixels [dB]"]
    assert rows == [["restored", "20.00", "15.00"], ["mean", "10.00", ""]]


@pytest.mark.parametrize(
    "picture",
    ["http://a.example/x.png", "//a.example/x.png", "file:///x.png", "../x.png", "/x.png",
     "data:text/html,x", "javascript:x", "x.png?y", "\\\\a\\x.png"],
)  # fmt: skip
def test_a_page_takes_no_picture_from_elsewhere(picture):
    with pytest.raises(ValueError, match="no picture beside the page"):
        Section("Heading", picture=picture)


def test_hostile_names_stay_text_in_every_place_of_a_page(tmp_path):
    """As headings, facts, cells and pictures: no tag, no attribute and no address comes of them."""
    hostile = "\"'><img src=http://a.example/x onerror=alert(1)><script>x</script>"
    name = hostile.replace("/", "").replace(":", "")
    table = {"header": [hostile, hostile], "rows": [[hostile, hostile]]}
    sections = [Section(hostile, hostile, name + ".png", **table)]
    write_page(tmp_path / "page.html", hostile, {hostile: hostile}, sections)
    html = (tmp_path / "page.html").read_text()
    tags = re.findall(r"<(\w+)([^<>]*)>", html)
    kinds = {tag for tag, _ in tags} - {"html", "head", "body", "meta", "title", "style"}
    assert kinds == {"h1", "h2", "p", "img", "table", "tr", "th", "td"}
    (image,) = [attributes for tag, attributes in tags if tag == "img"]
    assert re.fullmatch(r' src="[^"]*" alt="[^"]*"', image)
    assert "url(" not in html and "@import" not in html

"""The page that every study writes: index.html, the pictures beside it, and its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vae_jax.files import json_bytes, write_file, write_files
from vae_jax.report.pictures import png_bytes

PAGE, RESULTS = "index.html", "results.json"


def templates(package: str) -> Environment:
    """Returns the templates in a package; they escape all text, and refuse missing values."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_TEMPLATES = templates("vae_jax.report")
RUN_PICTURES = {
    "curves": "The loss and its parts R and K after each epoch. Where the loss on held-out images "
    "rises while that on training images falls, the model overfits.",
    "samples": "Decoded points of N(0, I): are they sharp, varied, and images of the data?",
    "reconstructions": "Test images, each above the decoded mean of its posterior; a corrupted "
    "input is shown between them. Fine texture is lost first.",
}


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        name: File name beside the page, without its suffix.
        image: The picture; None if the PNG is beside the page already.
        caption: What to look at.
        alt: Text for readers who cannot see the picture; the caption by default.
    """

    name: str
    image: Image.Image | None
    caption: str
    alt: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+=-]+", self.name) or self.name.startswith("."):
            raise ValueError(f"{self.name!r} is not the name of a picture beside its page")


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        header: Names of the columns; the cells of the first column name the rows.
        rows: Cells as text.
        caption: Units and uncertainty of the numbers.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a page: a heading, a paragraph, then pictures and tables."""

    heading: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """The page of a study.

    Attributes:
        title: The subject of the study.
        lead: One paragraph: what was done, and what was found.
        sections: The sections, in order.
        facts: Where the numbers come from, such as checkpoint step and seed.
        command: The command that makes this page again.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write_study(folder: str | Path, page: Page, numbers: Mapping[str, Any]) -> list[Path]:
    """Writes index.html, the PNGs beside it and results.json, all or nothing.

    If the parent of `folder` is a run folder, its index.html is written anew, see
    `write_run_index`.

    Args:
        folder: Where to write.
        page: What to show; all text is escaped, and nothing is loaded from elsewhere.
        numbers: What was measured; NaN and infinity become null.

    Returns:
        The paths written, the page first.

    Raises:
        UserError: The folder cannot be written.
    """
    folder = Path(folder)
    pictures = {
        f"{picture.name}.png": png_bytes(picture.image, page.facts)
        for section in page.sections
        for picture in section.pictures
        if picture.image is not None
    }
    files = pictures | {RESULTS: results_bytes(page, numbers), PAGE: render(page).encode()}
    written = write_files(folder, files)
    if (folder.parent / "config.json").is_file():
        write_run_index(folder.parent)
    return [written[-1], *written[:-1]]


def results_bytes(page: Page, numbers: Mapping[str, Any]) -> bytes:
    """Returns the contents of results.json: what its page says about itself, and the numbers."""
    about = {"title": page.title, "lead": page.lead, "command": page.command}
    return json_bytes(about | {"facts": dict(page.facts), "results": dict(numbers)})


def render(page: Page, links: Sequence[tuple[str, str, str]] = ()) -> str:
    """Returns the HTML of a page, which refers to `NAME.png` beside it for each picture.

    Args:
        page: What to show.
        links: Address, title and lead of other pages.
    """
    return _TEMPLATES.get_template("page.html").render(page=page, links=links)


def write_run_index(workdir: str | Path) -> Path:
    """Writes WORKDIR/index.html, which shows a run's pictures and links every page made for it.

    Args:
        workdir: A run folder; lead, facts and command of the page are those of its own
            results.json, if it has one.

    Returns:
        The page.
    """
    workdir = Path(workdir)
    sections = [
        Section(name.capitalize(), pictures=[Picture(name, None, caption)])
        for name, caption in RUN_PICTURES.items()
        if (workdir / f"{name}.png").is_file()
    ]
    links = []
    for results in sorted(workdir.glob(f"*/{RESULTS}")):
        if (results.parent / PAGE).is_file():
            about = json.loads(results.read_text(encoding="utf-8"))
            links.append((f"{results.parent.name}/{PAGE}", about["title"], about["lead"]))
    about: dict[str, Any] = {"lead": "All pages about this run.", "facts": {}, "command": ""}
    if (workdir / RESULTS).is_file():
        about |= json.loads((workdir / RESULTS).read_text(encoding="utf-8"))
    title = f"Run {workdir.resolve().name}"
    page = Page(title, about["lead"], sections, about["facts"], about["command"])
    return write_file(workdir / PAGE, render(page, links).encode())


def counted(number: int, noun: str) -> str:
    """Returns a number and its noun, such as "1 seed" or "1,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plus_minus(value: float, spread: float | None, form: str) -> str:
    """Returns "value ± spread" in a format; the value alone without a finite spread."""
    text = form.format(value)
    return text if spread is None or not isfinite(spread) else f"{text} ± {form.format(spread)}"


def text_table(table: Table) -> str:
    """Returns a table as aligned text: the first column to the left, the others to the right."""
    lines = [list(table.header), *(list(row) for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )

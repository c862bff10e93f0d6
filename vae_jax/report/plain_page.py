"""A page of pictures and tables as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        heading: its title.
        text: a paragraph.
        picture: file name of a picture beside the page, or a data URI that holds it; nothing else
            is taken, so that no page loads anything from elsewhere.
        header: of the table; the first column is a name.
        rows: of the table, as text.
    """

    heading: str
    text: str = ""
    picture: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        beside = not set(self.picture) & set(":/\\?#")
        if not beside and not self.picture.startswith("data:image/"):
            raise ValueError(f"{self.picture[:100]!r} is no picture beside the page or within it")


def write_page(
    path: str | Path, title: str, facts: Mapping[str, str], sections: Sequence[Section]
) -> None:
    """Write the page, all or nothing; everything is escaped.

    Args:
        path: HTML file.
        title: of the page.
        facts: such as the checkpoint's step, under the title.
        sections: in order.
    """
    path = Path(path)
    environment = Environment(
        loader=PackageLoader("vae_jax.report", "."), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("plain_page.html").render(
        title=title, facts=dict(facts), sections=sections
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(path)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as aligned text: the first column to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )

"""Prints what a study found, and writes it as a page that names its command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.report.page import Page


def command() -> str:
    """Returns the command line that started this process, ready for a shell."""
    return shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def publish(
    page: Page, numbers: Mapping[str, Any], folder: str | Path, tables: bool = True
) -> list[Path]:
    """Prints the lead of a page and its tables, and writes it.

    Args:
        page: The page.
        numbers: Its numbers, for results.json.
        folder: The folder to write.
        tables: Whether to print the tables; the page has them in any case.

    Returns:
        The path of index.html, in a list.
    """
    from vae_jax.report.page import text_table, write_study

    print(page.lead)
    for section in page.sections if tables else ():
        for table in section.tables:
            print(f"\n{section.heading}\n{text_table(table)}")
    return write_study(folder, replace(page, command=command()), numbers)[:1]

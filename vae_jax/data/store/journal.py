"""The journal of an unfinished store: which work is on the disk for good.

Its first line holds the settings, each later one an entry about some rows that were written and
synced before it. A line that a kill or a power failure has torn ends the journal.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vae_jax.data.store.durable import sync_directory, write_synced
from vae_jax.types import UserError

JOURNAL = "journal.jsonl"


class Journal:
    """The journal in a directory; opening it writes nothing.

    Attributes:
        entries: what is in the journal, each with "rows", its number of images.
        pending: entries that `commit` will add.

    Args:
        directory: of the unfinished store.
        settings: what the rows depend on, as JSON gives it back.

    Raises:
        UserError: the journal is about other settings.
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self._directory, self._path = directory, directory / JOURNAL
        self._settings = settings
        self.entries = self._read()
        self.pending: list[dict[str, Any]] = []

    @property
    def rows(self) -> int:
        """Number of rows that the entries are about."""
        return sum(entry["rows"] for entry in self.entries)

    def keep(self, count: int) -> None:
        """Start the journal anew with its first `count` entries, all in one step."""
        del self.entries[count:]
        new = self._directory / (JOURNAL + ".new")
        write_synced(new, _json_lines([{"settings": self._settings}, *self.entries]))
        os.replace(new, self._path)
        sync_directory(self._directory)

    def commit(self) -> None:
        """Add the pending entries; their rows must be synced already."""
        with self._path.open("ab") as file:
            file.write(_json_lines(self.pending))
            file.flush()
            os.fsync(file.fileno())
        self.entries += self.pending
        self.pending = []

    def remove(self) -> None:
        """Delete the journal: everything is written."""
        self._path.unlink()

    def _read(self) -> list[dict[str, Any]]:
        """Entries up to the first that is torn; rows after those are written again."""
        entries: list[dict[str, Any]] = []
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            wanted = "rows" if entries else "settings"
            if not isinstance(entry, dict) or wanted not in entry:
                break
            entries.append(entry)
        if not entries:
            return []
        if entries[0]["settings"] != self._settings:
            raise UserError(
                f"{self._directory} holds unfinished work with other settings "
                f"({_differences(entries[0]['settings'], self._settings)}): "
                "use the same ones, or delete that directory"
            )
        return entries[1:]


def _json_lines(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    found = found if isinstance(found, dict) else {}
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    return ", ".join(f"{key} {found.get(key)}, now {wanted[key]}" for key in keys) or "unreadable"

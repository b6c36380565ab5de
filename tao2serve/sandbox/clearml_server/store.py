"""Documents, events and settings in one SQLite file; one transaction at a time."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Doc = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT, project TEXT, body TEXT NOT NULL,
    UNIQUE (kind, id));
CREATE INDEX IF NOT EXISTS documents_project ON documents (kind, project);
CREATE INDEX IF NOT EXISTS documents_name ON documents (kind, name);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL, type TEXT NOT NULL, metric TEXT NOT NULL, variant TEXT NOT NULL,
    iter INTEGER NOT NULL, timestamp INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_task ON events (task, type);
CREATE UNIQUE INDEX IF NOT EXISTS events_latest ON events (task, type, metric, variant, iter)
    WHERE type IN ('plot', 'training_debug_image');
"""


class Tx:
    """What one API call sees: reads and writes that all happen, or none of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def get(self, kind: str, identifier: str) -> Doc | None:
        """Return a document, or None."""
        row = self._db.execute("SELECT body FROM documents WHERE kind = ? AND id = ?", (kind, identifier)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, doc: Doc) -> None:
        """Insert a document, or replace the one with its id, which keeps its place in creation order."""
        self._db.execute(
            "INSERT INTO documents (kind, id, name, project, body) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, id) DO UPDATE SET"
            " name = excluded.name, project = excluded.project, body = excluded.body",
            (kind, doc["id"], doc.get("name"), doc.get("project"), json.dumps(doc)),
        )

    def delete(self, kind: str, identifier: str) -> bool:
        """Remove a document; False if there was none."""
        cursor = self._db.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, identifier))
        return cursor.rowcount > 0

    def scan(
        self, kind: str, *, ids: Sequence[str] | None = None, projects: Sequence[str] | None = None
    ) -> Iterator[Doc]:
        """Yield documents in creation order, narrowed to these ids and these projects."""
        query, values = "SELECT body FROM documents WHERE kind = ?", [kind]
        for column, wanted in (("id", ids), ("project", projects)):
            if wanted is not None:
                query += f" AND {column} IN (SELECT value FROM json_each(?))"  # noqa: S608  two constants
                values.append(json.dumps(list(wanted)))
        for row in self._db.execute(query + " ORDER BY seq", values).fetchall():
            yield json.loads(row[0])

    def by_name(self, kind: str, name: str) -> Doc | None:
        """Return the first document with this exact name."""
        row = self._db.execute(
            "SELECT body FROM documents WHERE kind = ? AND name = ? ORDER BY seq LIMIT 1", (kind, name)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def add_events(self, events: Iterable[Doc]) -> None:
        """Append events; plots and debug images replace the one of the same metric, variant and iteration."""
        self._db.executemany(
            "INSERT OR REPLACE INTO events (task, type, metric, variant, iter, timestamp, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    event["task"],
                    event["type"],
                    str(event.get("metric") or ""),
                    str(event.get("variant") or ""),
                    int(event.get("iter") or 0),
                    int(event["timestamp"]),
                    json.dumps(event),
                )
                for event in events
            ),
        )

    def events(self, task: str, event_type: str | None = None) -> list[Doc]:
        """Return a task's events by time, then by arrival."""
        query, values = "SELECT body FROM events WHERE task = ?", [task]
        if event_type:
            query, values = query + " AND type = ?", [*values, event_type]
        rows = self._db.execute(query + " ORDER BY timestamp, seq", values).fetchall()
        return [json.loads(row[0]) for row in rows]

    def delete_events(self, task: str) -> int:
        """Remove a task's events; the number removed."""
        return self._db.execute("DELETE FROM events WHERE task = ?", (task,)).rowcount

    def clear(self) -> None:
        """Remove everything."""
        self._db.execute("DELETE FROM documents")
        self._db.execute("DELETE FROM events")


_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_BEGIN_ANEW = "move it away, or begin anew: tao2serve sandbox down --purge"


class StoreError(Exception):
    """The database cannot be read or written; the text says why and what helps."""


class Store:
    """The database file. An acknowledged call survives `kill -9` and a loss of power (write-ahead log, synced)."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        with self._told():
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # NORMAL would do for kill -9; FULL costs 0.2 ms a writing call (two shared CPU cores).
            self._db.execute("PRAGMA synchronous = FULL")
            (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"{path} is damaged ({verdict}); {_BEGIN_ANEW}")
            self._db.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Run calls one after the other; an exception undoes everything the call wrote."""
        with self._lock, self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield Tx(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of the disk's errors and of a damaged file what a reader can do about them; others are defects."""
        try:
            yield
        except sqlite3.Error as error:
            primary = (error.sqlite_errorcode if hasattr(error, "sqlite_errorcode") else 0) & 0xFF
            if primary == sqlite3.SQLITE_FULL:
                hint = "is on a disk that is full; free some space, then try again"
            elif primary in _DAMAGED:
                hint = f"is damaged ({error}); {_BEGIN_ANEW}"
            elif primary in _DISK:
                hint = f"cannot be read or written: {error}"
            else:
                raise
            raise StoreError(f"{self._path} {hint}") from error

    def close(self) -> None:
        """Close the file; later calls fail."""
        with self._lock:
            self._db.close()

"""Triggers by which the database itself refuses to change or delete what was only ever added, whoever asks.

They stop a slip and a stolen web process; who owns the database can drop them, and is caught by the chain and the log.
A migration that changes one of these tables has to make them anew: SQLite copies the table then, and leaves them behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Each table, and what makes a row of it the same as one that is there.
TABLES: Final = {
    "journal_auditevent": "number = NEW.number",
    "journal_eventplace": "event_id = NEW.event_id OR place = NEW.place",
}
_REFUSAL: Final = "the journal is only added to"


def install(vendor: str) -> Iterator[str]:
    """Yield the statements that make the triggers; twice does no harm."""
    yield from remove(vendor)
    if vendor == "postgresql":
        yield f"""
            CREATE FUNCTION journal_refuse() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
        """
    for table, same in TABLES.items():
        if vendor == "postgresql":
            yield f"""
                CREATE TRIGGER {table}_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
                FOR EACH STATEMENT EXECUTE FUNCTION journal_refuse()
            """
            continue
        # The third is for INSERT OR REPLACE, which deletes without a word (https://www.sqlite.org/lang_conflict.html).
        conditions = {
            "update": "",
            "delete": "",
            "insert": f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})",  # noqa: S608 - names from above
        }
        for action, when in conditions.items():
            yield f"""
                CREATE TRIGGER {table}_{action} BEFORE {action.upper()} ON {table} {when}
                BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
            """


def remove(vendor: str) -> Iterator[str]:
    """Yield the statements that drop the triggers."""
    for table in TABLES:
        if vendor == "postgresql":
            yield f"DROP TRIGGER IF EXISTS {table}_refuse ON {table}"
        else:
            yield from (
                f"DROP TRIGGER IF EXISTS {table}_{action}" for action in ("update", "delete", "insert")
            )
    if vendor == "postgresql":
        yield "DROP FUNCTION IF EXISTS journal_refuse()"

"""The tables of a database as Alembic's revisions make them: made once, brought up to date, refused if newer.

A revision is named by the number of its format and has a file `format_<number>.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import sqlalchemy as sql
from sqlalchemy.engine import Connection

_ENVIRONMENT = Path(__file__).parent / "migrations"
_upgrading = Lock()  # Alembic's context is the process's


@dataclass(frozen=True)
class Schema:
    """Tables that belong together: the folder of their revisions, the newest one's number.

    `versions` is the table that says which one a database has.
    """

    folder: Path
    versions: str
    format: int

    def format_of(self, connection: Connection) -> int | None:
        """The format of the tables that are there; None if it is nowhere said."""
        if not sql.inspect(connection).has_table(self.versions):
            return None
        table = sql.table(self.versions, sql.column("version_num"))
        said = connection.execute(sql.select(table.c.version_num)).scalar_one_or_none()
        return None if said is None else int(said)

    def upgrade(self, connection: Connection) -> None:
        """Make the tables, or make those of an earlier format what they should be."""
        from alembic import command
        from alembic.config import Config

        config = Config(
            attributes={"connection": connection, "version_table": self.versions},
        )
        config.set_main_option("script_location", str(_ENVIRONMENT))
        config.set_main_option("version_locations", str(self.folder))
        config.set_main_option("path_separator", "newline")
        with _upgrading:
            command.upgrade(config, str(self.format))

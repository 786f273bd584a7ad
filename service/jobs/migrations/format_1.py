"""Jobs, and what became of the files of those that ingest."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    for kind in ("scans", "ingests"):
        op.create_table(
            kind,
            sa.Column("number", sa.Integer, primary_key=True),
            sa.Column("id", TEXT, nullable=False, unique=True),
            sa.Column("library", TEXT, nullable=False),
            sa.Column("owner", TEXT),
            sa.Column("seen_by", TEXT),
            sa.Column("name", TEXT, nullable=False),
            sa.Column("file", TEXT, nullable=False),
            sa.Column("options", sa.JSON, nullable=False),
            sa.Column("state", TEXT, nullable=False),
            sa.Column("error", TEXT),
            sa.Column("created_at", TEXT, nullable=False),
            sa.Column("started_at", TEXT),
            sa.Column("finished_at", TEXT),
        )
        op.create_index(f"ix_{kind}_state", kind, ["state"])
    op.create_table(
        "files",
        sa.Column("ingest", TEXT, primary_key=True),
        sa.Column("file", TEXT, primary_key=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("type", TEXT),
        sa.Column("detail", TEXT),
    )

"""Jobs, and what became of the files of those that ingest."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables; files of jobs that were there before this have some of them."""
    for kind in ("scans", "ingests"):
        op.create_table(
            kind,
            sa.Column("id", TEXT, primary_key=True),
            sa.Column("owner", TEXT),
            sa.Column("seen_by", TEXT),
            sa.Column("name", TEXT, nullable=False),
            sa.Column("file", TEXT, nullable=False),
            sa.Column("options", sa.JSON, nullable=False),
            sa.Column("state", TEXT, nullable=False),
            sa.Column("error", TEXT),
            sa.Column("created_at", TEXT, nullable=False),
            sa.Column("finished_at", TEXT),
            if_not_exists=True,
        )
        op.create_index(f"ix_{kind}_state", kind, ["state"], if_not_exists=True)
    op.create_table(
        "files",
        sa.Column("ingest", TEXT, primary_key=True),
        sa.Column("file", TEXT, primary_key=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("type", TEXT),
        sa.Column("detail", TEXT),
        if_not_exists=True,
    )

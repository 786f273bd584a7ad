"""Recordings say how much of their file could not be decoded."""

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Nothing is known of what is there."""
    op.add_column(
        "recordings",
        sa.Column("undecoded_seconds", sa.Float, nullable=False, server_default="0"),
    )

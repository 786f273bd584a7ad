"""Segments say when their recordings last changed, so that readers read again only those that did."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Nothing has changed since then in what is there."""
    op.add_column("segments", sa.Column("changed", sa.Integer, nullable=False, server_default="0"))

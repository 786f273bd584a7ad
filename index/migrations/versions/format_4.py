"""The format is Alembic's to keep, and a library has an id, by which it knows its folder."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Swap the one property for the other."""
    properties = sa.table("properties", sa.column("name", sa.Text), sa.column("value", sa.Text))
    op.execute(sa.delete(properties).where(properties.c.name == "format"))
    op.execute(sa.insert(properties).values(name="id", value=secrets.token_hex(16)))

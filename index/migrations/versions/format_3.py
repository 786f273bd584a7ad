"""Keys, and the owners of recordings, who may keep them private."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Recordings that are there are nobody's, and answer everybody."""
    op.add_column("recordings", sa.Column("owner", TEXT))
    op.add_column(
        "recordings", sa.Column("private", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.drop_index("places", "recordings")
    op.create_index(
        "places",
        "recordings",
        [
            "segment",
            "first",
            "number",
            "count",
            "duration",
            "licence_until",
            "removed_at",
            "owner",
            "private",
        ],
    )
    op.create_table(
        "keys",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("expires_at", TEXT),
        sa.Column("revoked_at", TEXT),
    )

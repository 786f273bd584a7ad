"""Recordings, the segments that their codes are in, the audit log, and keys."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables, and an audit log that refuses to be rewritten."""
    properties = op.create_table(
        "properties",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("value", TEXT, nullable=False),
    )
    op.execute(sa.insert(properties).values(name="id", value=secrets.token_hex(16)))
    op.create_table(
        "segments",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("embeddings", sa.Integer, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("header_sha256", TEXT, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "recordings",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("rightsholder", TEXT, nullable=False),
        sa.Column("rights", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("title", TEXT),
        sa.Column("artist", TEXT),
        sa.Column("isrc", TEXT),
        sa.Column("iswc", TEXT),
        sa.Column("work", TEXT),
        sa.Column("label", TEXT),
        sa.Column("release_date", TEXT),
        sa.Column("licence_until", TEXT, index=True),
        sa.Column("sha256", TEXT, nullable=False, index=True),
        sa.Column("codes_sha256", TEXT, nullable=False, index=True),
        sa.Column("duration", sa.Float, nullable=False),
        sa.Column("undecoded_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("ingested_at", TEXT, nullable=False),
        sa.Column("supplied_at", TEXT, nullable=False),
        sa.Column("supplied_by", TEXT),
        sa.Column("removed_at", TEXT),
        sa.Column("segment", sa.Integer, sa.ForeignKey("segments.number")),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("owner", TEXT),
        sa.Column("private", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    for name in (
        "source",
        "rightsholder",
    ):  # of any length, which other indexes of PostgreSQL are not for
        op.create_index(f"ix_recordings_{name}", "recordings", [name], postgresql_using="hash")
    op.create_index(
        "one_recording_per_id",
        "recordings",
        ["id"],
        unique=True,
        sqlite_where=sa.text("removed_at IS NULL"),
        postgresql_where=sa.text("removed_at IS NULL"),
    )
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
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("by", TEXT),
        sa.Column("recording", TEXT),
        sa.Column("details", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
    )
    op.create_index("ix_audit_recording_kind", "audit", ["recording", "kind"])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    for verb in ("UPDATE", "DELETE", "TRUNCATE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
        )

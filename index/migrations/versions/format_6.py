"""The audit log's entries have a second link, for short proofs, and are found by recording and kind."""

import json

import sqlalchemy as sa
from alembic import op

from index.audit_log import BEGINNING, chained, digest, skipped

revision = "6"
down_revision = "5"

COLUMNS = ("number", "at", "kind", "by", "recording", "details", "hash")


def upgrade() -> None:
    """Link the entries that are there anew; what they say stays."""
    op.create_index("ix_audit_recording_kind", "audit", ["recording", "kind"])
    connection = op.get_bind()
    audit = sa.table("audit", *map(sa.column, COLUMNS))
    rows = connection.execute(sa.select(audit).order_by(audit.c.number)).all()
    if not rows:
        return
    hashes = [BEGINNING]
    for row in rows:
        text = json.dumps(row[:-1], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        hashes.append(chained(hashes[-1], hashes[skipped(row.number)], digest(text)))
    values = [{"of": row.number, "is": hash} for row, hash in zip(rows, hashes[1:], strict=True)]
    update = sa.update(audit).where(audit.c.number == sa.bindparam("of"))
    table, refusal = "", "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    if connection.dialect.name != "sqlite":
        table, refusal = " ON audit", "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
    op.execute(f"DROP TRIGGER audit_refuses_update{table}")
    connection.execute(update.values(hash=sa.bindparam("is")), values)
    op.execute(f"CREATE TRIGGER audit_refuses_update BEFORE UPDATE ON audit {refusal}")

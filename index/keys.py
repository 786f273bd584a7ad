"""Keys: who may ask a library what, over HTTP. Of a secret only its hash is kept.

A key is written `earmark_<id>_<secret>`. The secret is 32 random bytes, so its SHA-256 needs no salt and no
slowness: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from index.database import Text
from index.key import SCOPES, Key

_KEY = re.compile(r"earmark_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_LONGEST_OWNER = 200  # characters

TABLES = sql.MetaData()
_keys = sql.Table(
    "keys",
    TABLES,
    sql.Column("id", Text, primary_key=True),
    sql.Column("owner", Text, nullable=False),
    sql.Column("scope", Text, nullable=False),
    sql.Column("sha256", Text, nullable=False),
    sql.Column("created_at", Text, nullable=False),
    sql.Column("expires_at", Text),
    sql.Column("revoked_at", Text),
)


def add(
    connection: Connection, owner: str, scope: str, expires_at: str | None, now: str
) -> tuple[Key, str]:
    """A new key, and the text that is shown once. Raises ValueError for an owner that cannot be one."""
    if not owner.strip() or not owner.isprintable() or len(owner) > _LONGEST_OWNER:
        raise ValueError(
            f"owner {owner!r} is no name of up to {_LONGEST_OWNER} printable characters"
        )
    if scope not in SCOPES:
        raise ValueError(f"scope {scope!r} is none of {', '.join(SCOPES)}")
    key = Key(secrets.token_hex(6), owner.strip(), scope, now, expires_at)
    secret = secrets.token_urlsafe(32)
    connection.execute(sql.insert(_keys).values(**vars(key), sha256=_hash(secret)))
    return key, f"earmark_{key.id}_{secret}"


def revoke(connection: Connection, id: str, now: str) -> bool:
    """Make a key worthless; whether it was worth something. Raises KeyError if there is none."""
    if _row(connection, id) is None:
        raise KeyError(id)
    done = connection.execute(
        sql.update(_keys)
        .where(_keys.c.id == id, _keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return bool(done.rowcount)


def every(connection: Connection) -> list[Key]:
    """All keys, the oldest first."""
    rows = connection.execute(sql.select(_keys).order_by(_keys.c.created_at, _keys.c.id))
    return [_key(row) for row in rows]


def are_there(connection: Connection) -> bool:
    """Whether a key was ever made: from then on nothing is answered without one."""
    return connection.execute(sql.select(_keys.c.id).limit(1)).first() is not None


def recognise(connection: Connection, text: str) -> Key | None:
    """The key that a text is, if it is one that is neither expired nor revoked."""
    found = _KEY.fullmatch(text)
    row = _row(connection, found[1]) if found else None
    # compared in any case, so that the time taken says nothing
    right = hmac.compare_digest(_hash(found[2] if found else ""), row.sha256 if row else "")
    if row is None or not right:
        return None
    key = _key(row)
    return key if key.state == "good" else None


def _row(connection: Connection, id: str) -> sql.Row | None:
    return connection.execute(sql.select(_keys).where(_keys.c.id == id)).first()


def _key(row: sql.Row) -> Key:
    return Key(row.id, row.owner, row.scope, row.created_at, row.expires_at, row.revoked_at)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

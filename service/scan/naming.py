"""When two names mean the same work: titles, artists and ISRCs as the world writes them.

Written once, as SQL for DuckDB, because metadata comes by the hundred million rows. A key is what is left
of a name without case, accents and punctuation, without what is in brackets, and without "feat. …" and
"- Remastered 2011". Most names are plain words, which need no more than lower case and are spared the rest.
"""

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from fingerprint.isrc import SQL_IN_TEXT
from index.recording import Recording

# Seconds by which the durations of one recording may differ from one shop to the other.
SAME_LENGTH = 3.0

MACROS = r"""
CREATE MACRO folded(name) AS
    trim(regexp_replace(strip_accents(lower(name)), '[^\p{L}\p{N}]+', ' ', 'g'));
CREATE MACRO without_guests(name) AS
    regexp_replace(name, '(?i)[\s,(\[]+(feat\.?|ft\.?|featuring)\s.*$', '');
CREATE MACRO without_edition(name) AS
    regexp_replace(
        name,
        '(?i)\s+[-–—/]\s+[^-–—/]*(remaster|version|edit|mono|stereo|deluxe|anniversary)[^-–—/]*$',
        ''
    );
CREATE MACRO without_brackets(name) AS
    regexp_replace(name, '[(\[{][^)\]}]*[)\]}]', ' ', 'g');
CREATE MACRO is_plain(name) AS
    regexp_full_match(name, '[\p{L}\p{N}]+(?: [\p{L}\p{N}]+)*')
    AND NOT (contains(name, ' feat ') OR contains(name, ' ft ') OR contains(name, ' featuring '));
CREATE MACRO title_in_full(name) AS
    coalesce(
        nullif(folded(without_brackets(without_edition(without_guests(name)))), ''),
        nullif(folded(name), '')
    );
CREATE MACRO title_key(name) AS
    CASE WHEN is_plain(strip_accents(lower(name))) THEN strip_accents(lower(name))
        ELSE title_in_full(name) END;
CREATE MACRO is_nameless(name) AS NOT coalesce(regexp_matches(name, '[\p{L}\p{N}]'), false);
CREATE MACRO without_the(name) AS CASE WHEN starts_with(name, 'the ') THEN name[5:] ELSE name END;
CREATE MACRO the_ahead(name) AS regexp_replace(name, '(?i)^(.*), the$', 'The \1');
CREATE MACRO artist_in_full(name) AS
    nullif(without_the(folded(the_ahead(trim(without_guests(name))))), '');
CREATE MACRO artist_key(name) AS
    CASE WHEN is_plain(strip_accents(lower(name))) THEN without_the(strip_accents(lower(name)))
        ELSE artist_in_full(name) END;
CREATE MACRO isrc_joined(code) AS regexp_replace(code, '[^A-Z0-9]', '', 'g');
CREATE MACRO isrc_all(text) AS
    list_transform(regexp_extract_all(upper(text), $ISRC, 1), lambda code: isrc_joined(code));
CREATE MACRO isrc_first(text) AS
    CASE WHEN length(text) = 12 THEN upper(text)
        ELSE isrc_joined(regexp_extract(upper(text), $ISRC, 1)) END;
CREATE MACRO isrc_second(text) AS CASE WHEN length(text) >= 24 THEN isrc_all(text)[2] END;
CREATE MACRO isrc_many(text) AS length(text) >= 36 AND len(isrc_all(text)) > 2;
CREATE MACRO isrc_key(text) AS
    nullif(regexp_extract(isrc_first(text), '^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$'), '');
CREATE MACRO words(name) AS list_sort(string_split(name, ' '));
CREATE MACRO isrc_nearly(one, other) AS damerau_levenshtein(one, other) = 1;
"""


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory that has the macros, and opens nothing it is not told to."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.execute(MACROS.replace("$ISRC", f"'{SQL_IN_TEXT}'"))
    return connection


# What a label says of the recording that was found: the same work, another work of the library, a work that
# the library does not have, nothing.
AGREES, DIFFERS, UNRESOLVED, UNLABELLED = "agrees", "differs", "unresolved", "unlabelled"
LABELS = (AGREES, DIFFERS, UNRESOLVED, UNLABELLED)

# Title, artist, ISRC, musical work.
Names = tuple[str | None, str | None, str | None, str | None]


def add_catalogue(connection: duckdb.DuckDBPyConnection, recordings: Iterable[Recording]) -> None:
    """Make the table `works` of recordings, with the keys of their names."""
    columns = ("id", "title", "artist", "isrc", "work", "duration", "rightsholder")
    rows = [tuple(getattr(each, name) for name in columns) for each in recordings]
    table = pa.table(
        {
            name: pa.array(
                [row[at] for row in rows], pa.float64() if name == "duration" else pa.string()
            )
            for at, name in enumerate(columns)
        }
    )
    connection.register("catalogue", table)
    connection.execute(
        """
        CREATE TABLE works AS
        SELECT *, isrc_key(isrc) AS code, title_key(title) AS name, artist_key(artist) AS by,
            words(artist_key(artist)) AS words
        FROM catalogue
        """
    )


def compare(
    connection: duckdb.DuckDBPyConnection, pairs: Sequence[tuple[Names, Names]]
) -> list[str]:
    """Whether labels (the first of each pair) agree with recordings (the second), one of LABELS for each.

    They are compared by ISRC where both have one, else by title and artist. A label differs only if it names
    another work that the library has (`add_catalogue`), by ISRC or by title and artist both: a label that
    nobody can look up says nothing.
    """
    if not pairs:
        return []
    columns = {
        f"{name}_{side}": pa.array([pair[side][at] for pair in pairs], pa.string())
        for at, name in enumerate(("title", "artist", "isrc", "work"))
        for side in (0, 1)
    }
    connection.register("named", pa.table(columns | {"row": list(range(len(pairs)))}))
    rows = connection.execute(
        """
        SELECT CASE
            WHEN list_has_any(isrc_all(isrc_0), isrc_all(isrc_1)) THEN $agrees
            WHEN title_key(title_0) IS NULL AND isrc_key(isrc_0) IS NULL THEN $unlabelled
            WHEN title_key(title_0) = title_key(title_1)
                AND coalesce(artist_key(artist_0) = artist_key(artist_1), true) THEN $agrees
            WHEN title_key(title_1) IS NULL THEN $unresolved
            WHEN EXISTS (
                SELECT 1 FROM works WHERE code = isrc_key(isrc_0)
                AND name IS DISTINCT FROM title_key(title_1) AND coalesce(work <> work_1, true)
            ) THEN $differs
            WHEN EXISTS (
                SELECT 1 FROM works
                WHERE name = title_key(title_0) AND works.by = artist_key(artist_0)
                AND coalesce(work <> work_1, true)
            ) THEN $differs
            ELSE $unresolved
        END
        FROM named ORDER BY row
        """,
        {
            "agrees": AGREES,
            "differs": DIFFERS,
            "unresolved": UNRESOLVED,
            "unlabelled": UNLABELLED,
        },
    ).fetchall()
    return [label for (label,) in rows]

"""What a scan leaves in its folder: tables, a summary, and a page (`service.scan.report_page`)."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from index.library import Library
from service.scan.decoy import false_discovery_rate, most_wrong
from service.scan.journal import SUMMARY, Journal, Row
from service.scan.matched_segment import Segment
from service.scan.naming import LABELS, add_catalogue, compare, connect
from service.scan.report_page import render, timeline
from service.scan.report_tables import TableWriter, report_in
from service.scan.worker import Heard

FILES = {
    "file": pa.string(),
    "member": pa.string(),
    "sha256": pa.string(),
    "bytes": pa.int64(),
    "duration": pa.float64(),
    "status": pa.string(),  # match, review, none or failed
    "matched_seconds": pa.float64(),
    "matched_share": pa.float64(),
    "segments": pa.int64(),
    "e_value": pa.float64(),
    "title": pa.string(),
    "artist": pa.string(),
    "isrc": pa.string(),
    "undecoded_seconds": pa.float64(),
    "notes": pa.string(),  # what else was not heard
    "label": pa.string(),  # one of LABELS; of files with a match
    "error": pa.string(),
}
_TYPES: dict[Any, pa.DataType] = {
    float: pa.float64(),
    float | None: pa.float64(),
    int | None: pa.int64(),
    bool: pa.bool_(),
    list[tuple[float, float]]: pa.list_(pa.list_(pa.float64())),
}
SEGMENTS = {
    "file": pa.string(),
    "member": pa.string(),
    **{
        name: _TYPES.get(field.annotation, pa.string())
        for name, field in Segment.model_fields.items()
    },
    "file_share": pa.float64(),
    "reference_share": pa.float64(),
}
ERRORS = {"file": pa.string(), "member": pa.string(), "type": pa.string(), "detail": pa.string()}
# Works and files that the page shows; the tables have all.
SHOWN = 500
WORKS_SHOWN = 5000
COPIES_SHOWN = 20  # names of files of one content
# What stands in the tables for an E-value that is smaller: 0 would say that chance is excluded.
LEAST_E_VALUE = 1e-300
_AT_ONCE = 1000  # rows whose labels are compared together


def write_report(journal: Journal, folder: Path, library: Library) -> dict[str, Any]:
    """Write the report of a journal into its folder; returns the summary.

    library : that was searched, in whose catalogue the dataset's labels are looked up
    """
    with report_in(folder) as partial:
        with connect() as names:
            add_catalogue(names, library.every_recording(owner=journal.said("owner") or None))
            counts, shown = _write_tables(journal, partial, names)
            _count_sounds(journal, counts)
            summary = _summary(journal, counts)
            found = _works_found(partial, names)
            summary |= {
                "works_found": sum(work["files"] > 0 for work in found),
                "works_for_review": sum(not work["files"] for work in found),
            }
        (partial / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
        page = render(summary, found[:WORKS_SHOWN], shown, counts)
        (partial / "report.html").write_text(page, encoding="utf-8")
    return summary


class _Counts(Counter[str]):
    """Files and sounds by what became of them."""

    seconds = 0.0
    matched_seconds = 0.0
    undecoded_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.errors: Counter[str] = Counter()


def _write_tables(
    journal: Journal, folder: Path, names: duckdb.DuckDBPyConnection
) -> tuple[_Counts, list[dict[str, Any]]]:
    counts = _Counts()
    shown: dict[str, dict[str, Any]] = {}  # by content
    with (
        TableWriter(folder, "files", FILES) as files,
        TableWriter(folder, "segments", SEGMENTS) as segments,
        TableWriter(folder, "errors", ERRORS) as errors,
    ):
        rows = journal.rows()
        while some := list(islice(rows, _AT_ONCE)):
            for row, heard, label in _labelled(some, names):
                entry = _file(row, heard, label)
                files.write(entry)
                _count(counts, heard, entry)
                if heard.error is not None:
                    errors.write(
                        {"file": row.file, "member": row.member, **heard.error.model_dump()}
                    )
                for match in heard.matches:
                    segments.write(_segment(row, heard, match))
                if heard.matches:
                    _show(shown, entry, heard)
    (folder / "errors.parquet").unlink()  # the contract has it as CSV alone
    return counts, list(shown.values())


def _show(shown: dict[str, dict[str, Any]], entry: dict[str, Any], heard: Heard) -> None:
    """Have the page show a file, once with all the copies of it."""
    name = ": ".join(filter(None, (entry["file"], entry["member"])))
    content = entry["sha256"] or name
    if content in shown:
        of_it = shown[content]
        of_it["copies"] += 1
        if len(of_it["names"]) < COPIES_SHOWN:
            of_it["names"].append(name)
    elif len(shown) < SHOWN:
        shown[content] = entry | {"names": [name], "copies": 1, "timeline": timeline(heard)}


def _labelled(
    rows: Sequence[Row], names: duckdb.DuckDBPyConnection
) -> Iterator[tuple[Row, Heard, str | None]]:
    """Rows with what was heard, and whether what the dataset says agrees with the strongest match."""
    heard = [Heard.model_validate(row.heard) for row in rows]
    rows = list(map(_said, rows, heard))
    matches = {
        at: match
        for at, each in enumerate(heard)
        for match in [next((it for it in each.matches if it.tier == "match"), None)]
        if match is not None
    }
    pairs = [
        (
            (rows[at].title, rows[at].artist, rows[at].isrc, None),
            (match.title, match.artist, match.isrc, match.work),
        )
        for at, match in matches.items()
    ]
    labels: dict[int, str] = dict(zip(matches, compare(names, pairs), strict=True))
    for at, (row, each) in enumerate(zip(rows, heard, strict=True)):
        yield row, each, labels.get(at)


def _said(row: Row, heard: Heard) -> Row:
    """A row that says what the file's tags do, if the dataset says nothing of it."""
    if row.title or row.artist or row.isrc:
        return row
    tags = heard.tags
    return row._replace(title=tags.get("title"), artist=tags.get("artist"), isrc=tags.get("isrc"))


def _file(row: Row, heard: Heard, label: str | None) -> dict[str, Any]:
    matched = _covered((m.query_start, m.query_end) for m in heard.matches if m.tier == "match")
    tiers = {match.tier for match in heard.matches}
    status = (
        "failed" if heard.error else "match" if "match" in tiers else "review" if tiers else "none"
    )
    return {
        "file": row.file,
        "member": row.member,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "duration": heard.duration,
        "status": status,
        "matched_seconds": round(matched, 3),
        "matched_share": round(min(1.0, matched / heard.duration), 4) if heard.duration else None,
        "segments": len(heard.matches),
        "e_value": min((_stated(match.e_value) for match in heard.matches), default=None),
        "title": row.title,
        "artist": row.artist,
        "isrc": row.isrc,
        "undecoded_seconds": heard.undecoded_seconds,
        "notes": "; ".join(heard.notes) or None,
        "label": label,
        "error": heard.error.type if heard.error else None,
    }


def _segment(row: Row, heard: Heard, match: Segment) -> dict[str, Any]:
    duration = heard.duration or math.inf
    heard_share = (match.query_end - match.query_start) / duration
    work_share = (match.reference_end - match.reference_start) / (
        match.reference_duration or math.inf
    )
    return {
        "file": row.file,
        "member": row.member,
        **match.model_dump(),
        "e_value": _stated(match.e_value),
        "other_version": match.other_version,
        "file_share": round(min(1.0, heard_share), 4),
        "reference_share": round(min(1.0, work_share), 4),
    }


def _stated(e_value: float) -> float:
    return max(e_value, LEAST_E_VALUE)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that spans cover together."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _count(counts: _Counts, heard: Heard, entry: dict[str, Any]) -> None:
    counts["files"] += 1
    counts[entry["status"]] += 1
    counts[f"label {entry['label']}"] += entry["label"] is not None
    counts.seconds += heard.duration or 0.0
    counts.matched_seconds += entry["matched_seconds"]
    counts["probed"] += heard.probed
    counts.undecoded_seconds += heard.undecoded_seconds
    counts["partly heard"] += heard.error is None and bool(heard.notes)
    if heard.error is not None:
        counts.errors[heard.error.type] += 1


def _count_sounds(journal: Journal, counts: _Counts) -> None:
    """Chance is asked once for each content, however many copies of it there are."""
    for said in journal.sounds():
        heard = Heard.model_validate(said)
        if heard.error is None:
            counts["sounds"] += 1
            counts["queries"] += heard.queries
            counts["matched sounds"] += any(it.tier == "match" for it in heard.matches)
            counts["decoys"] += heard.decoy
            counts["matched decoys"] += heard.decoy_e_value is not None


def _summary(journal: Journal, counts: _Counts) -> dict[str, Any]:
    elapsed = float(journal.said("elapsed") or 0)
    matched = counts["matched sounds"]
    wrong_per_million = float(journal.said("wrong_per_million") or 1)
    rate, low, high = false_discovery_rate(
        counts["queries"],
        matched,
        counts["decoys"],
        counts["matched decoys"],
        wrong_per_million / 1e6,
    )
    return {
        "files": counts["files"],
        "seconds": round(counts.seconds, 3),
        "matched_files": counts["match"],
        "review_files": counts["review"],
        "failed_files": counts["failed"],
        "estimated_false_discovery_rate": rate,
        "false_discovery_rate_interval": [round(low, 4), round(high, 4)],
        "elapsed_seconds": round(elapsed, 3),
        "real_time_factor": round(counts.seconds / elapsed, 2) if elapsed else None,
        "matched_seconds": round(counts.matched_seconds, 3),
        "undecoded_seconds": round(counts.undecoded_seconds, 3),
        "files_with_notes": counts["partly heard"],
        "different_sounds": counts["sounds"],
        "matched_sounds": matched,
        "wrong_at_most": most_wrong(
            counts["queries"], matched, counts["decoys"], counts["matched decoys"]
        ),
        "silent_files": counts.errors["silent"],
        "probed_files": counts["probed"],
        "decoys": counts["decoys"],
        "matched_decoys": counts["matched decoys"],
        "labels": {label: counts[f"label {label}"] for label in LABELS},
        "errors": dict(counts.errors.most_common()),
        "dataset": Path(journal.said("dataset") or "").name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "library_recordings": int(journal.said("recordings") or 0),
        "library_seconds": float(journal.said("library_seconds") or 0),
        **{
            name: journal.said(name)
            for name in (
                "begun_at",
                "version",
                "operator",
                "owner",
                "library",
                "encoder",
                "snapshot",
                "probe",
                "thorough",
                "hypotheses",
                "max_e_value",
                "wrong_per_million",
            )
        },
    }


def _works_found(folder: Path, names: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Recordings found, those in most files first; those for review alone come last."""
    rows = names.execute(
        """
        SELECT rightsholder, recording, any_value(coalesce(title, source)) AS title,
            any_value(artist) AS artist, any_value(isrc) AS isrc,
            count(DISTINCT (file, member)) FILTER (tier = 'match') AS files,
            count(DISTINCT (file, member)) FILTER (tier = 'review') AS review,
            sum(query_end - query_start) FILTER (tier = 'match') AS seconds,
            max(reference_share) FILTER (tier = 'match') AS share, min(e_value) AS e_value
        FROM read_parquet($segments)
        GROUP BY rightsholder, recording
        ORDER BY files DESC, review DESC, recording
        """,
        {"segments": str(folder / "segments.parquet")},
    )
    columns = [column[0] for column in rows.description]
    return [dict(zip(columns, row, strict=True)) for row in rows.fetchall()]

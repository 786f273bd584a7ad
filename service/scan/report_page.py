"""The page of a scan's report: one file that loads nothing, to be read, printed and filed."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.presentation.formatting import in_words
from service.presentation.templating import templates
from service.scan.decoy import bound_in_words
from service.scan.worker import Heard


def render(
    summary: Mapping[str, Any],
    found: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
) -> str:
    """The page.

    found : recordings, those with a match first
    shown : files with something found, the copies of one content as one
    """
    return (
        templates()
        .get_template("scan.html")
        .render(
            summary=summary,
            matched=[work for work in found if work["files"]],
            for_review=[work for work in found if not work["files"]],
            matched_files=[file for file in shown if file["status"] == "match"],
            review_files=[file for file in shown if file["status"] != "match"],
            more=counts["match"] + counts["review"] > sum(file["copies"] for file in shown),
            batch=bound_in_words(summary["matched_sounds"], summary["wrong_at_most"]),
        )
    )


def timeline(heard: Heard) -> list[dict[str, Any]]:
    """The segments of one file in order of time, where they lie in it in per cent, and in words."""
    duration = heard.duration or max(match.query_end for match in heard.matches)
    return [
        {
            "match": match,
            "left": 100 * match.query_start / duration,
            "width": 100 * (match.query_end - match.query_start) / duration,
            "bundle": match.evidence and match.evidence.removesuffix(".html") + ".zip",
            **in_words(match),
        }
        for match in sorted(heard.matches, key=lambda match: (match.query_start, match.e_value))
    ]

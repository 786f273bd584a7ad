"""The page of a scan's report: one file that loads nothing, to be read, printed and filed."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.presentation.formatting import in_words, percent
from service.presentation.templating import templates
from service.scan.worker import Heard

# From what share on a bound on the wrong matches of a batch says nothing worth stating.
_MEANINGLESS = 0.5


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
            batch=batch(summary),
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


def batch(summary: Mapping[str, Any]) -> str:
    """How many of the matches of a batch may be wrong, in words; what is too little to tell is said to be."""
    matched = summary["matched_sounds"]
    if not matched:
        return "There are no matches, so none can be wrong. This says nothing of matches that were missed."
    have = "sound has a match" if matched == 1 else "different sounds have a match"
    of_these = f"Copies of one content counted once, {matched:,} {have}"
    if "wrong_at_most" in summary:
        most = summary["wrong_at_most"]
        if most is None or most >= max(1, _MEANINGLESS * matched):
            return _too_few(of_these, summary)
        return (
            f"{of_these}. With 95 % confidence, at most {most:,} of these {matched:,} are matched wrongly."
        )
    _, high = summary["false_discovery_rate_interval"]
    if high >= _MEANINGLESS:
        return _too_few(of_these, summary)
    return f"{of_these}. With 95 % confidence, at most {percent(high)} of them are matched wrongly."


def _too_few(of_these: str, summary: Mapping[str, Any]) -> str:
    return (
        f"{of_these}. That is too few, with {summary['decoys']:,} decoys, to state a bound on how many are "
        "wrong: each has to be judged by itself, with its evidence."
    )

"""The page of a piece of evidence, and what else could explain a match."""

from collections.abc import Sequence

from service.evidence.pictures import Picture
from service.evidence.statement import Evidence
from service.presentation.formatting import chance, in_words, span
from service.presentation.templating import templates
from service.query.answer import Match


def render(evidence: Evidence, pictures: Sequence[Picture]) -> str:
    """The page: one file that loads nothing and runs nothing."""
    return (
        templates()
        .get_template("evidence.html")
        .render(
            evidence=evidence,
            match=evidence.match,
            recording=evidence.recording,
            said=in_words(evidence.match),
            pictures=pictures,
            explanations=explanations(evidence),
            line_of_copies=evidence.least_likeness(),
        )
    )


def explanations(evidence: Evidence) -> list[tuple[str, str]]:
    """What else than copying could make clip and recording alike, and what the data say of it."""
    match = evidence.match
    return [
        ("Another version", _version(evidence)),
        ("A shared loop or sample", _shared(evidence)),
        (
            "A common source",
            "Not excluded: both the clip and the recording can hold an older recording, such as a sample, a "
            "broadcast or stock music, that is not in this library.",
        ),
        (
            "The other way round",
            "Not excluded: likeness has no direction. Whether the recording was taken from the clip's "
            "source is "
            "for dates and documents to say.",
        ),
        (
            "A licence",
            f"Not excluded: the catalogue says of the recording’s rights “{match.rights}”, and nothing of "
            "licences that were given to others.",
        ),
        (
            "Chance",
            _chance(match),
        ),
    ]


def _chance(match: Match) -> str:
    tested = chance(match)
    if match.same_file:
        return f"Excluded: the clip is {tested}."
    if match.tested_clips is None:
        return "Not excluded: this calibration was not tested."
    return f"{'Unlikely' if match.tier == 'match' else 'Not excluded'}: in a test, {tested}."


def _version(evidence: Evidence) -> str:
    least, likeness = evidence.least_likeness(), evidence.likeness
    if evidence.match.other_version:
        return (
            "Likely: the clip is less like the recording than a copy would be. A cover, or the same score "
            "played by other instruments, looks like this."
        )
    if least is None or likeness is None:
        return (
            "Not excluded: this evidence has no measure that tells a copy from a version that keeps "
            "the recording’s timing."
        )
    if likeness < least:
        return f"Not excluded: the likeness, {likeness:.2f}, is below that of copies, {least:.2f}."
    return (
        f"Unlikely for a cover by other players: the likeness, {likeness:.2f}, is that of copies in such "
        f"a clip "
        f"({least:.2f} or more). A version made from the same score with the same sounds is not excluded."
    )


def _shared(evidence: Evidence) -> str:
    match = evidence.match
    if match.shared_start is not None and match.shared_end is not None:
        where = span(match.shared_start, match.shared_end)
        return (
            f"Likely: what the clip has at {where} is in other recordings of this library too, "
            "and the match rests on it."
        )
    return (
        "Not found in this library: no other recording here has the passage that the match rests on. A "
        "loop or "
        "sample from a library that others use too is not excluded, because other catalogues were not "
        "searched."
    )

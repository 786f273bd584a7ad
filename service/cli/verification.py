"""The commands for evidence: verify it, and show or replace the key that it is signed with."""

from pathlib import Path

import click

from service.cli.group import (
    EXIT_STATUSES,
    complain,
    current_settings,
    finish,
    json_option,
    library_option,
    limits_of,
    load_encoder,
    main,
    open_library,
    print_fields,
    print_json,
)


@main.command(
    name="verify-evidence",
    short_help="Check evidence: its signature, its log, its score, its clip.",
    epilog=EXIT_STATUSES,
)
@click.argument("files", nargs=-1, required=True, metavar="FILE.zip...")
@click.option(
    "--clip", metavar="CLIP", help="The clip: its hash is compared, its fingerprint made again."
)
@click.option("--key", metavar="HEX", help="The library's public key, as its owner told you it.")
@click.option(
    "--timestamp-roots",
    metavar="FILE.pem",
    help="Certificates of the time stamp servers that you trust.",
)
@json_option
@library_option
def verify_evidence(
    files: tuple[str, ...],
    clip: str | None,
    key: str | None,
    timestamp_roots: str | None,
    as_json: bool,
) -> None:
    """Check evidence: that it is what was signed, and that what it states can be computed again.

    \b
    Examples:
      earmark query suspect.mp3 --evidence evidence
      earmark verify-evidence evidence/*.zip --clip suspect.mp3 --key 5f0c2a7be9d14c3d…

    No library is needed. The signature, the times, the entries of the audit log, the recording's codes, the
    calibration and the score are checked from the file alone. Whose key signed it is checked against --key,
    or against the library that is here, if it is the one; the clip only with --clip. What was not checked is
    said.

    Exit status 1 if anything does not hold, or if the signature, the log or the score could not be checked.
    verify.html, which is written beside the evidence, checks all but the score and the clip's fingerprint in
    a browser.

    \b
    JSON, a line for each thing that was checked, and the conclusion:
      {"file", "what": "signature|key|time|time stamp|log|recording|calibration|score|answer|clip|library|
       conclusion", "holds": true, false or null (not checked), "detail"}
    """
    from index.library import Library
    from service.evidence.errors import EvidenceError
    from service.evidence.evidence_checks import Means, verify

    settings, encoder = current_settings(), load_encoder()
    there = Library.is_there(settings.library, settings.database)
    library = open_library(settings, encoder, searchable=True) if there else None
    means = Means(
        encoder,
        library,
        Path(clip) if clip else None,
        key,
        Path(timestamp_roots) if timestamp_roots else None,
        limits_of(settings),
    )
    words = {True: "holds", False: "DOES NOT HOLD", None: "NOT CHECKED"}
    failures = 0
    for file in files:
        try:
            checks = verify(Path(file), means)
        except EvidenceError as error:
            complain(str(error))
            failures += 1
            continue
        failures += not checks[-1].holds
        if not as_json and len(files) > 1:
            click.echo(f"{file}:")
        for check in checks:
            if as_json:
                print_json({"file": file, **check.model_dump()})
            else:
                click.echo(f"{check.what} {words[check.holds]}: {check.detail}")
    finish(failures)


@main.command(
    name="signing-key",
    short_help="Show the public key that evidence is signed with.",
    epilog=EXIT_STATUSES,
)
@click.option(
    "--replace",
    is_flag=True,
    help="Make another key, because this one was lost or may have been stolen.",
)
@json_option
@library_option
def signing_key(replace: bool, as_json: bool) -> None:
    """Show the public key that this library signs evidence with; it is made when it is first needed.

    \b
    Example:
      earmark signing-key

    Tell it to those who shall be able to check evidence by another way than the evidence: a letter, a web
    page. The private key is the file evidence.key in the library's folder: keep a copy, and keep it to
    yourself. Evidence that was signed with a key that was replaced still holds; the audit log says until
    when it counted.

    \b
    JSON:
      {"public_key": 64 hexadecimal digits, "since": ISO 8601, "replaced": [earlier keys]}
    """
    from index import signing

    library = open_library(current_settings(), load_encoder())
    if replace:
        signing.replace(library)
    else:
        signing.signer(library)
    *earlier, newest = signing.keys(library)
    fields = {
        "public_key": newest.details["public_key"],
        "since": newest.at,
        "replaced": [it.details["public_key"] for it in earlier],
    }
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)

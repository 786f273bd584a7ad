"""A run's figures for people: one self-contained page, a summary, and README's table.

    python -m benchmarks.report FOLDER      report.html and summary.json of a folder with results.json
    python -m benchmarks.report README.md   README's table, from the newest results (full ones first)

README keeps the table between two comments, `<!-- benchmark:begin -->` and `<!-- benchmark:end -->`.
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import click

from benchmarks.plan import LENGTHS, SEVERITIES
from benchmarks.throughput import DECODE
from fingerprint.errors import EarmarkError

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "data" / "report.html"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
NO_STAGES = "<p>Earmark's stages beside decoding alone were not measured in this run.</p>"
MEASURES = {
    "identified": "right work ranked first",
    "localised": "and placed within 0.5 s",
    "accepted": "right, and accepted at its own gate",
}
LIMITS = (
    "The music is freely licensed and mostly made for games: orchestral, electronic, tracker modules and "
    "rendered MIDI. There is no large corpus of vocal pop in it.",
    "No microphone was involved. Rooms are synthetic or measured impulse responses, phones are chains of "
    "filters, automatic gain and codecs; figures for real loudspeakers and microphones may be lower.",
    "The library is small beside a rightsholder's catalogue: what a hundred times as many recordings do to "
    "false accepts and to speed has to be measured at that size.",
    "The intervals take clips as independent. Clips of one work are not, so they are somewhat too narrow.",
    "Versions, covers and samples of the same work are not scored; what is the same audio is right "
    "wherever it is heard.",
    "Systems are run at their defaults. Some were made for whole files or for other damage.",
)

Results = Mapping[str, Any]


class ReportError(EarmarkError):
    """There is nothing to report on, or nowhere to write it."""


def load(folder: Path) -> dict[str, Any]:
    """A folder's results, with those of `throughput.json` beside them, if any, under "throughput"."""
    file = folder / "results.json"
    try:
        results: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{file}: no results that can be read ({error})") from None
    throughput = folder / "throughput.json"
    if throughput.is_file():
        results["throughput"] = json.loads(throughput.read_text())
    return results


def newest(results: Path = RESULTS) -> Path | None:
    """The latest folder of full results, while there are none of a sample's; None if there is neither."""
    folders = sorted(file.parent for file in results.glob("*/results.json"))
    full = [folder for folder in folders if load(folder).get("size") == "full"]
    found = full or folders
    return found[-1] if found else None


def write(folder: Path) -> None:
    """Write report.html and summary.json beside results.json."""
    results = load(folder)
    (folder / "summary.json").write_text(json.dumps(summary(results), indent=2) + "\n")
    (folder / "report.html").write_text(page(results), encoding="utf-8")


def summary(results: Results) -> dict[str, Any]:
    """The figures that a reader wants first; shares are [share, low, high] of a 95 % interval."""
    return {
        **{key: results.get(key) for key in ("size", "seed", "date", "encoder", "clips_sha256")},
        **{key: results.get(key) for key in ("machine", "works", "clips")},
        "peers": {name: _summary(peer) for name, peer in results["peers"].items()},
    }


def _summary(peer: Mapping[str, Any]) -> dict[str, Any]:
    if not measured(peer):
        return {"version": peer["version"], "problem": peer["problem"]}
    groups, gate = peer["groups"], peer["gates"][0]

    def shares(group: str, keys: Iterable[str]) -> dict[str, Any]:
        tallies = groups.get(group, {})
        return {key: tallies[key]["shares"]["identified"] for key in keys if key in tallies}

    single = groups.get("single", {}).get("all", {}).get("shares", {})
    return {
        "version": peer["version"],
        "problem": peer["problem"],
        "identified_by_length": shares("length", map(str, LENGTHS)),
        "identified_in_chains": shares("severity", SEVERITIES),
        "localised": single.get("localised"),
        "accepted": single.get("accepted"),
        "wrong_accepts": single.get("wrong"),
        "false_accepts": peer["absent"].get("all", {}).get("share"),
        "false_accepts_per_hour": peer["absent"].get("all", {}).get("per_hour"),
        "found_at_1_percent_false_accepts": {
            "5 s": gate["found"].get("length 5"),
            "chains": gate["found"].get("chain"),
        },
        "ingest_times_real_time": _rounded(peer["ingest_speed"]),
        "query_milliseconds_5_s": _rounded(_scaled(peer["query_seconds"].get("5"), 1000)),
        "index_bytes_per_second": _rounded(peer["bytes_per_second"]),
    }


def measured(peer: Mapping[str, Any]) -> bool:
    """Whether there are any answers of it."""
    return bool(peer["groups"].get("cell"))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


# --- README ----------------------------------------------------------------------------------------------


def table(results: Results) -> str:
    """README's table in Markdown, and a line on where it comes from."""
    head = (
        "",
        "1 s",
        "2 s",
        "5 s",
        "10 s",
        "chains easy / medium / hard",
        "chains, at 1 % false accepts",
        "accepted",
        "wrong",
        "false accepts",
        "ingest",
        "query of 5 s",
        "index",
    )
    lines = [_row(head), "|---|" + "---:|" * (len(head) - 1)]
    for name, peer in summary(results)["peers"].items():
        if "identified_by_length" in peer:
            lines.append(_row(_cells(name, peer)))
    works, clips = results["works"], results["clips"]
    references, absent = works["reference"], works["absent"]
    library_hours = references["hours"] + works["distractor"]["hours"]
    text = (
        f"Clips of {references['works']} works in a library of "
        f"{references['works'] + works['distractor']['works']:,} recordings ({library_hours:.0f} h): "
        f"{clips['present']:,} clips under {len(results['degradations'])} kinds of damage, and "
        f"{clips['absent']:,} clips ({clips['absent_hours']:.1f} h) of {absent['works']} works that the "
        "library does not have. Columns *1 s* to *10 s* and *chains* (several kinds of damage at random, "
        "5 s): % of clips whose work is ranked first. *At 1 % false accepts*: found when every system's "
        "gate is set to let 1 % of the absent clips pass. *Accepted*, *wrong*, *false accepts*: right "
        "answers, wrong answers and answers to absent clips, in %, that a system lets pass at its own "
        "gate. *Ingest*: times real time on one core, decoding included. *Index*: bytes per second of "
        f"reference audio. {results['machine']['processor']}, {results['date']}, encoder "
        f"`{results['encoder']}`, seed {results['seed']}; intervals and every cell are in the "
        f"[report](benchmarks/results/{results['date']}-{results['encoder']}/report.html)."
    )
    return "\n".join([*lines, "", text])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(name: str, peer: Mapping[str, Any]) -> list[str]:
    lengths, chains = peer["identified_by_length"], peer["identified_in_chains"]
    return [
        f"**{name}**" if name == "earmark" else name,
        *(_percent(lengths.get(seconds)) for seconds in ("1", "2", "5", "10")),
        " / ".join(_percent(chains.get(severity)) for severity in SEVERITIES),
        _percent(peer["found_at_1_percent_false_accepts"]["chains"]),
        _percent(peer["accepted"]),
        _percent(peer["wrong_accepts"], 2),
        _percent(peer["false_accepts"], 2),
        _number(peer["ingest_times_real_time"], "{:,.0f}x"),
        _number(peer["query_milliseconds_5_s"], "{:,.0f} ms"),
        _number(peer["index_bytes_per_second"], "{:,.0f} B/s"),
    ]


def _percent(share: Sequence[float] | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share[0]:.{digits}f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def with_table(readme: str, results: Results) -> str:
    """README's text with its table made anew. Raises `ReportError` if it has no place for one."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(
            f"there is no place for the table: put {BEGIN} and {END} on lines of their own"
        )
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


# --- the page --------------------------------------------------------------------------------------------


def page(results: Results) -> str:
    """The report as one HTML page without any other file."""
    from benchmarks import plots  # a second to import: not for those who only want the table

    peers = {name: peer for name, peer in results["peers"].items() if measured(peer)}
    families = list(dict.fromkeys(d["family"] for d in results["degradations"].values()))
    speeds = {each["stage"]: each for each in results.get("throughput", {}).get("stages", ())}
    ratios = {
        stage: each["share_of_decoding"]
        for stage, each in speeds.items()
        if each["share_of_decoding"]
    }
    decoding = speeds.get(DECODE, {}).get("times_real_time")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=f"Earmark beside its peers, {results.get('date', '')}",
        lead=_lead(results),
        overview=_overview(results),
        by_length=plots.by_length(peers),
        by_severity=plots.by_severity(peers),
        by_family=plots.by_family(peers, families),
        false_alarms=plots.false_alarms(peers),
        alarms=_alarms(peers),
        cost=plots.cost(peers, decoding),
        stages=_stages(results, plots.stages(ratios)) if ratios else NO_STAGES,
        heat=_heat(results, peers),
        missing=_missing(results),
        limits="".join(f"<li>{html.escape(line)}</li>" for line in LIMITS),
        facts=_facts(results),
        degradations=_definitions(results),
    )


def _lead(results: Results) -> str:
    works, clips = results["works"], results["clips"]
    references, distractors, absent = works["reference"], works["distractor"], works["absent"]
    sample = (
        "<p class='note'>A small sample: it shows that everything runs. Its intervals are wide.</p>"
        if results["size"] == "sample"
        else ""
    )
    return (
        f"<p>{clips['present']:,} clips of {references['works']} works, damaged in "
        f"{len(results['degradations'])} ways, looked up in a library of "
        f"{references['works'] + distractors['works']:,} recordings "
        f"({references['hours'] + distractors['hours']:.1f} h), and {clips['absent']:,} clips "
        f"({clips['absent_hours']:.2f} h) of {absent['works']} works that the library does not have. "
        f"All systems heard the same files. Truth is the set of all places with the same audio: "
        f"{clips['with_several_places']:,} of the clips are heard in more than one.</p>{sample}"
    )


def _overview(results: Results) -> str:
    head = (
        ("", ""),
        ("identified, 1 s", "single damage: right work ranked first"),
        ("2 s", ""),
        ("5 s", ""),
        ("10 s", ""),
        ("chains", "random chains of 5 s: easy, medium and hard"),
        ("at 1 %", "chains found when 1 % of the absent clips may pass"),
        ("localised", "single damage, all lengths: right, and placed within 0.5 s"),
        ("accepted", "right, and accepted at the system's own gate"),
        ("wrong", "another work accepted"),
        ("false accepts", "accepted answers to clips of absent works"),
        ("ingest", "times real time on one core, decoding included"),
        ("query", "median CPU time for a clip of 5 s, decoding included"),
        ("index", "bytes per second of reference audio"),
    )
    rows = ["<tr>" + "".join(f"<th title='{why}'>{name}</th>" for name, why in head) + "</tr>"]
    for name, peer in summary(results)["peers"].items():
        if "identified_by_length" not in peer:
            reason = html.escape(peer["problem"] or "no answers")
            rows.append(f"<tr><th>{name}</th><td colspan='13' class='none'>{reason}</td></tr>")
            continue
        lengths, chains = peer["identified_by_length"], peer["identified_in_chains"]
        cells = [
            *(_td(lengths.get(seconds)) for seconds in ("1", "2", "5", "10")),
            "<td>"
            + " / ".join(_percent(chains.get(severity)) for severity in SEVERITIES)
            + "</td>",
            _td(peer["found_at_1_percent_false_accepts"]["chains"]),
            _td(peer["localised"]),
            _td(peer["accepted"]),
            _td(peer["wrong_accepts"], 1),
            _td(peer["false_accepts"], 2),
            f"<td>{_number(peer['ingest_times_real_time'], '{:,.0f}x')}</td>",
            f"<td>{_number(peer['query_milliseconds_5_s'], '{:,.0f} ms')}</td>",
            f"<td>{_number(peer['index_bytes_per_second'], '{:,.0f} B/s')}</td>",
        ]
        row = "us" if name == "earmark" else ""
        rows.append(f"<tr class='{row}'><th>{name}</th>{''.join(cells)}</tr>")
    return f"<table class='overview'>{''.join(rows)}</table>"


def _td(share: Sequence[float] | None, digits: int = 0) -> str:
    if share is None:
        return "<td>–</td>"
    interval = f"{100 * share[1]:.{digits}f}–{100 * share[2]:.{digits}f}"
    return f"<td>{100 * share[0]:.{digits}f} <small>{interval}</small></td>"


def _stages(results: Results, plot: str) -> str:
    throughput = results["throughput"]
    memory = ", ".join(
        f"{what} {size / 2**20:,.0f} MiB"
        for what, size in throughput.get("peak_memory_bytes", {}).items()
    )
    return (
        "<p>Earmark's stages beside decoding alone, on the same files, by turns in one run. Ingest, query "
        f"and scan begin with decoding the file.</p>{plot}"
        + (f"<p>Peak memory of a process: {memory}.</p>" if memory else "")
    )


def _alarms(peers: Mapping[str, Any]) -> str:
    rows = [
        "<tr><th></th><th>its gate</th><th>absent clips</th><th>hours</th><th>accepted</th>"
        "<th>% per clip</th><th>per hour</th>"
        + "".join(f"<th>{seconds} s</th>" for seconds in LENGTHS)
        + "</tr>"
    ]
    for name, peer in peers.items():
        total = peer["absent"].get("all")
        if not total:
            continue
        by_length = (peer["absent"].get(f"length {seconds}", {}) for seconds in LENGTHS)
        rows.append(
            f"<tr><th>{name}</th><td class='text'>{html.escape(peer['gate'].replace('`', ''))}</td>"
            f"<td>{total['clips']:,}</td><td>{total['hours']:.2f}</td><td>{total['accepted']:,}</td>"
            f"{_td(total['share'], 2)}<td>{total['per_hour']:.1f}</td>"
            + "".join(f"<td>{each.get('accepted', '–')}</td>" for each in by_length)
            + "</tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _heat(results: Results, peers: Mapping[str, Any]) -> str:
    """Three tables, one shown at a time: every degradation × system × length."""
    tabs = "".join(
        f"<input type='radio' name='measure' id='m-{key}' {'checked' if not i else ''}>"
        f"<label for='m-{key}'>{text}</label>"
        for i, (key, text) in enumerate(MEASURES.items())
    )
    tables = "".join(
        f"<div class='scroll heat-{key}'>{_heat_table(results, peers, key)}</div>"
        for key in MEASURES
    )
    return f"<div class='heat'>{tabs}{tables}</div>"


def _heat_table(results: Results, peers: Mapping[str, Any], measure: str) -> str:
    count = len(LENGTHS)
    head = (
        "<tr><th></th>" + "".join(f"<th colspan='{count}'>{name}</th>" for name in peers) + "</tr>"
    )
    lengths = "".join(
        f"<th class='{'first' if seconds == LENGTHS[0] else ''}'>{seconds}</th>"
        for seconds in LENGTHS
    )
    rows = [head, f"<tr><th>seconds</th>{lengths * len(peers)}</tr>"]
    family = ""
    for name, what in results["degradations"].items():
        if what["family"] != family:
            family = what["family"]
            rows.append(
                f"<tr class='family'><th>{family}</th><td colspan='{count * len(peers)}'></td></tr>"
            )
        cells = []
        for peer in peers.values():
            for seconds in LENGTHS:
                tally = peer["groups"]["cell"].get(f"{name}|{seconds}")
                cells.append(_heat_cell(tally, measure, seconds == LENGTHS[0]))
        title = html.escape(what["description"], quote=True)
        rows.append(f"<tr><th title='{title}'>{html.escape(name)}</th>{''.join(cells)}</tr>")
    return f"<table class='cells'>{''.join(rows)}</table>"


def _heat_cell(tally: Mapping[str, Any] | None, measure: str, first: bool) -> str:
    edge = "first " if first else ""
    if tally is None:
        return f"<td class='{edge}none'>–</td>"
    value, low, high = tally["shares"][measure]
    tip = f"{tally[measure]} of {tally['clips']}; {100 * low:.0f} to {100 * high:.0f} %"
    return f"<td class='{edge}h{round(10 * value)}' title='{tip}'>{100 * value:.0f}</td>"


def _missing(results: Results) -> str:
    lines = [html.escape(problem) for problem in results["problems"]]
    lines += [
        f"{each['clips']} clips of {html.escape(each['degradation'])}, {each['seconds']} s, were not made: "
        + html.escape(each["reason"])
        for each in results["missing_clips"]
    ]
    if known := results["clips"]["absent_but_in_library"]:
        lines.append(
            f"{known} clips of absent works have the same audio as a recording in the library "
            "and are not scored."
        )
    for name, peer in results["peers"].items():
        if peer["problem"]:
            lines.append(f"<b>{name}</b>: {html.escape(peer['problem'])}")
        if refused := peer["refused"]:
            reason = html.escape(next(iter(refused.values())))
            lines.append(f"<b>{name}</b> could not take in {len(refused)} works: {reason}")
        for reason, count in peer["failures"].items():
            lines.append(f"<b>{name}</b>: {count} clips without an answer: {html.escape(reason)}")
        if peer["missing"] and measured(peer):
            cells = len({(each["degradation"], each["seconds"]) for each in peer["missing"]})
            clips = sum(each["clips"] for each in peer["missing"])
            lines.append(
                f"<b>{name}</b>: {clips} clips in {cells} cells are missing from its figures."
            )
    if not lines:
        return "<p>Nothing is missing.</p>"
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _facts(results: Results) -> str:
    machine, works = results["machine"], results["works"]
    facts = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}; times are CPU seconds on one thread",
        "encoder": results["encoder"],
        "size and seed": f"{results['size']}, {results['seed']}",
        "works": ", ".join(
            f"{role} {count['works']:,} ({count['hours']:.1f} h)" for role, count in works.items()
        ),
        "packages": f"{results['packages']['report']} of the report split, "
        f"{results['packages']['distractors']} of the others as distractors",
        "mixed in": ", ".join(f"{count} of {kind}" for kind, count in results["sources"].items()),
        "clips": f"{results['clips']['present'] + results['clips']['absent']:,}, "
        f"{results['clips']['hours']:.1f} h, sha256 {results['clips_sha256'][:16]}…",
        "systems": "; ".join(
            f"{name} {peer['version']} ({peer['licence']})"
            for name, peer in results["peers"].items()
            if peer["version"]
        ),
        "versions": ", ".join(f"{name} {value}" for name, value in results["versions"].items()),
    }
    rows = (
        f"<tr><th>{k}</th><td class='text'>{html.escape(v)}</td></tr>" for k, v in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _definitions(results: Results) -> str:
    rows = (
        f"<tr><th>{html.escape(name)}</th><td class='text'>{what['family']}</td>"
        f"<td class='text'>{html.escape(what['description'])}</td></tr>"
        for name, what in results["degradations"].items()
    )
    return f"<table>{''.join(rows)}</table>"


@click.command(help="Write the report of a results FOLDER, or the table of a README file.")
@click.argument("target", type=click.Path(path_type=Path), metavar="FOLDER|README")
def main(target: Path) -> None:
    """Exit status 1 if there are no results or no place for them."""
    try:
        if target.is_dir():
            write(target)
            return
        readme = target if target.is_file() else target.with_suffix(".md")
        folder = newest()
        if folder is None:
            raise ReportError(f"{RESULTS}: there are no results yet; run make benchmark")
        readme.write_text(
            with_table(readme.read_text(encoding="utf-8"), load(folder)), encoding="utf-8"
        )
    except (OSError, ReportError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The report's plots, each as SVG text made from results.json (see `run`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.plan import LENGTHS, SEVERITIES

# Colour and marker of each system; told apart in grey and by colour-blind readers too.
LOOKS = {
    "earmark": ("#00616e", "o"),
    "linear": ("#5fb3b8", "s"),
    "chromaprint": ("#e09f3e", "^"),
    "zvukodel": ("#b5384a", "D"),
    "audiolocate": ("#7a5195", "v"),
    "audfprint": ("#8a6b4e", "P"),
    "panako": ("#6b7a8f", "X"),
    "olaf": ("#a3a847", "<"),
    "dejavu": ("#444444", ">"),
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "path",
    "svg.hashsalt": "earmark",  # the same figures give the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5a8",
    "axes.labelcolor": "#39474a",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": "#1d2a2d",
    "xtick.color": "#39474a",
    "ytick.color": "#39474a",
    "grid.color": "#e2e8e9",
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}

BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # of figures that cross a line

Peers = Mapping[str, Mapping[str, Any]]
Shares = Sequence[float] | None


def look(name: str) -> dict[str, Any]:
    """Colour and marker of a system; Earmark is drawn above the others."""
    colour, marker = LOOKS.get(name, ("#888888", "h"))
    return {"color": colour, "marker": marker, "zorder": 5 if name == "earmark" else 3}


def by_length(peers: Peers) -> str:
    """Single degradations: identified, accepted, and found at one rate of false accepts, by length."""

    def group(measure: str) -> dict[str, dict[int, Shares]]:
        return {
            name: {seconds: _shares(peer, "length", str(seconds), measure) for seconds in LENGTHS}
            for name, peer in peers.items()
        }

    at_gate = {
        name: {s: peer["gates"][0]["found"].get(f"length {s}") for s in LENGTHS}
        for name, peer in peers.items()
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.5), sharey=True, layout="constrained")
        panels = (
            ("Right work ranked first", group("identified")),
            ("…and accepted at its own gate", group("accepted")),
            ("…and found at 1 % false accepts", at_gate),
        )
        for axis, (title, values) in zip(axes, panels, strict=True):
            _lines(axis, values)
            axis.set_title(title)
            axis.set_xlabel("seconds of music in the clip")
        axes[0].set_ylabel("% of clips")
        _legend(figure, axes[0])
        return _svg(figure)


def by_family(peers: Peers, families: Sequence[str]) -> str:
    """Identified, by length, for every family of degradations."""
    columns = 5
    rows = -(-len(families) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(10.4, 1.95 * rows + 0.4), sharex=True, sharey=True,
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for axis, family in zip(grid.flat, families, strict=False):
            values = {
                name: {s: _shares(peer, "family", f"{family}|{s}", "identified") for s in LENGTHS}
                for name, peer in peers.items()
            }
            _lines(axis, values)
            axis.set_title(family)
        for index, axis in enumerate(grid.flat):
            axis.set_visible(index < len(families))
            axis.tick_params(labelbottom=index + columns >= len(families))
        for axis in grid[:, 0]:
            axis.set_ylabel("% identified")
        _legend(figure, grid[0, 0])
        return _svg(figure)


def by_severity(peers: Peers) -> str:
    """Random chains of 5 s: identified, accepted and found at 1 % false accepts, by severity."""
    names = list(peers)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 3, figsize=(10.4, 0.42 * len(names) + 1.3), sharey=True, layout="constrained"
        )
        for axis, severity in zip(axes, SEVERITIES, strict=True):
            for row, name in enumerate(names):
                tally = peers[name]["groups"].get("severity", {}).get(severity, {})
                shares = tally.get("shares", {})
                gate = peers[name]["gates"][0]["found"].get(severity)
                for offset, value, face in (
                    (-0.22, shares.get("identified"), None),
                    (0.0, gate, "white"),
                    (0.22, shares.get("accepted"), "none"),
                ):
                    _dot(axis, value, row + offset, name, face, offset == 0.22)
            axis.set_title(severity.removeprefix("chain-"))
            axis.set_xlim(-3, 103)
            axis.set_xlabel("% of clips")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        return _svg(figure)


def false_alarms(peers: Peers) -> str:
    """Clips of absent works that a system accepts, at its own gate; and wrong accepts of known ones."""
    names = list(peers)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2, figsize=(10.4, 0.32 * len(names) + 1.2), sharey=True, layout="constrained"
        )
        for row, name in enumerate(names):
            absent = peers[name]["absent"].get("all", {})
            single = peers[name]["groups"].get("single", {}).get("all", {})
            wrong = single.get("shares", {}).get("wrong")
            for axis, value in ((axes[0], absent.get("share")), (axes[1], wrong)):
                _dot(axis, value, row, name)
                if value:
                    _note(axis, value, row)
        axes[0].set_title("Absent works: false accepts")
        axes[1].set_title("Works in the library: another one named and accepted")
        for axis in axes:
            axis.set_xlabel("% of clips")
            axis.set_xlim(left=-0.02 * axis.get_xlim()[1])
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        return _svg(figure)


def cost(peers: Peers, decode_speed: float | None) -> str:
    """Ingest speed, query time and size, one bar a system, logarithmic."""
    names = list(peers)
    panels: list[tuple[str, str, list[float | None]]] = [
        (
            "Ingest, times real time",
            "{:,.0f}x",
            [peers[name].get("ingest_speed") for name in names],
        ),
        (
            "Query of 5 s, milliseconds",
            "{:,.0f}",
            [_times(peers[name].get("query_seconds", {}).get("5"), 1000) for name in names],
        ),
        (
            "Index, bytes per second",
            "{:,.0f}",
            [peers[name].get("bytes_per_second") for name in names],
        ),
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 3, figsize=(10.4, 0.36 * len(names) + 1.0), sharey=True, layout="constrained"
        )
        for axis, (title, form, values) in zip(axes, panels, strict=True):
            for row, (name, value) in enumerate(zip(names, values, strict=True)):
                if value:
                    axis.barh(row, value, 0.62, color=look(name)["color"])
                    axis.annotate(
                        form.format(value),
                        (value, row),
                        (4, 0),
                        textcoords="offset points",
                        va="center",
                        bbox=BEHIND,
                    )
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            low, high = min(filter(None, values), default=1), max(filter(None, values), default=10)
            axis.set_xlim(low / 3, high * 4)
            axis.set_title(title)
            axis.grid(visible=False, axis="y")
        if decode_speed:
            axes[0].axvline(decode_speed, color="#39474a", linestyle="--", linewidth=1, zorder=1.5)
            axes[0].annotate(
                "decoding alone", (decode_speed, 0.0), (3, 3), textcoords="offset points",
                xycoords=("data", "axes fraction"), fontsize=8,
            )  # fmt: skip
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        return _svg(figure)


def stages(ratios: Mapping[str, float]) -> str:
    """What each of Earmark's stages takes, as multiples of the time that decoding alone takes."""
    names = list(ratios)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(10.4, 0.34 * len(names) + 0.8), layout="constrained")
        for row, name in enumerate(names):
            axis.barh(row, ratios[name], 0.62, color="#b9c4c6" if "decode" in name else "#00616e")
            axis.annotate(
                f"{ratios[name]:.2f}", (ratios[name], row), (4, 0),
                textcoords="offset points", va="center", bbox=BEHIND,
            )  # fmt: skip
        axis.axvline(1.0, color="#39474a", linestyle="--", linewidth=1, zorder=1.5)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel("CPU time, decoding alone = 1")
        axis.grid(visible=False, axis="y")
        return _svg(figure)


def _shares(peer: Mapping[str, Any], group: str, key: str, measure: str) -> Shares:
    tally = peer["groups"].get(group, {}).get(key)
    value: Shares = tally["shares"][measure] if tally else None
    return value


def _lines(axis: Axes, values: Mapping[str, Mapping[int, Shares]]) -> None:
    """One line a system over the lengths, with its intervals; a little apart, so that none is hidden."""
    spread = np.linspace(-0.16, 0.16, max(len(values), 1))
    for shift, (name, shares) in zip(spread, values.items(), strict=True):
        known = [(i, 100 * np.array(shares[s])) for i, s in enumerate(LENGTHS) if shares.get(s)]
        if not known:
            continue
        x = np.array([i for i, _ in known]) + shift
        value, low, high = np.array([v for _, v in known]).T
        axis.errorbar(
            x, value, (np.maximum(value - low, 0), np.maximum(high - value, 0)), label=name,
            linewidth=2.2 if name == "earmark" else 1.3, markersize=5 if name == "earmark" else 4,
            elinewidth=0.8, **look(name),
        )  # fmt: skip
    axis.set_xticks(range(len(LENGTHS)), [f"{s} s" for s in LENGTHS])
    axis.set_ylim(-4, 104)
    axis.grid(visible=False, axis="x")


def _dot(
    axis: Axes, value: Shares, y: float, name: str, face: str | None = None, tick: bool = False
) -> None:
    """A share with its interval, in per cent."""
    if value is None:
        return
    middle, low, high = (100 * v for v in value)
    style = look(name) | ({"marker": "|"} if tick else {})
    axis.errorbar(
        [middle], [y], xerr=[[max(middle - low, 0)], [max(high - middle, 0)]], linestyle="none",
        elinewidth=1.2, markersize=9 if tick else 6, markerfacecolor=face or style["color"],
        markeredgewidth=2 if tick else 1, **style,
    )  # fmt: skip


def _note(axis: Axes, value: Sequence[float], row: int) -> None:
    axis.annotate(
        f"{100 * value[0]:.2g} %",
        (100 * value[2], row),
        (6, 0),
        textcoords="offset points",
        va="center",
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 9))


def _svg(figure: Figure) -> str:
    """The drawing without its XML head, as HTML takes it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

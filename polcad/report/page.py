"""Figures, plots and tables as one self-contained page: plots are drawn by uPlot, which is put into the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from polcad.errors import ConfigError

_DIGITS = 6  # significant, of a plotted value


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in large print: what it is, its value as text, and a word of explanation."""

    name: str
    value: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `colour` names a colour of report.css; a `fill_to` number fills towards that other series."""

    label: str
    values: Sequence[float | None]
    colour: str = "power"
    dash: bool = False
    width: float = 1.5
    fill_to: int | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over a shared `x`: seconds since the start (`time`), or any number with `x_label`; y times 100 is %."""

    title: str
    x: Sequence[float]
    series: Sequence[Series]
    x_label: str = ""
    note: str = ""
    time: bool = False
    sync: str = ""  # plots of one name move their cursors together
    height_px: int = 260
    y_from: float | None = None  # where the y axis begins; None: where the lines do
    half: bool = False  # two such plots stand side by side
    x_names: Sequence[str] = ()  # of the places 0, 1, 2 … on the x axis, instead of their numbers


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; `bar` names a column of fractions that is drawn as bars."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    bar: int | None = None
    folded: bool = False


def page(title: str, subtitle: str, figures: Sequence[Figure], parts: Sequence[Plot | Table]) -> str:
    """The page's HTML."""
    plots = [_drawn(part) for part in parts if isinstance(part, Plot)]
    body = [_table(part) if isinstance(part, Table) else _place(part) for part in parts]
    fills = {
        "TITLE": escape(title),
        "SUBTITLE": escape(subtitle),
        "STYLE": _asset("web/vendor/uPlot.min.css") + _asset("report/report.css"),
        "FIGURES": "".join(_figure(figure) for figure in figures),
        "BODY": "\n".join(body),
        "DATA": json.dumps(plots, separators=(",", ":")).replace("<", "\\u003c"),
        "SCRIPT": _asset("web/vendor/uPlot.iife.min.js") + _asset("report/report.js"),
    }
    pieces = _asset("report/page.html").split("@@")  # text and names by turns: what is filled in is never looked at
    return "".join(fills[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def write(path: Path, text: str) -> None:
    """Write a report; ConfigError where that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def check_writable(path: Path | None) -> None:
    """ConfigError where a report could not be written: to be asked before the long work that it tells of."""
    try:
        if path is not None:
            path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _asset(name: str) -> str:
    return files("polcad").joinpath(name).read_text(encoding="utf-8")


def _figure(figure: Figure) -> str:
    level = ' class="figure bad"' if figure.bad else ' class="figure"'
    name, value, note = escape(figure.name), escape(figure.value), escape(figure.note)
    return f'<div{level}><h2>{name}</h2><div class="value">{value}</div><div class="sub">{note}</div></div>'


def _place(plot: Plot) -> str:
    wide = "panel plot half" if plot.half else "panel plot"
    return (
        f'<section class="{wide}"><div class="head"><h2>{escape(plot.title)}</h2><div class="key"></div>'
        f'<div class="reading"></div></div><div class="canvas" style="height:{plot.height_px}px"></div>'
        f"{_note(plot.note)}</section>"
    )


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _drawn(plot: Plot) -> dict[str, Any]:
    return {
        "x": [_number(value) for value in plot.x],
        "xLabel": plot.x_label,
        "xNames": list(plot.x_names),
        "time": plot.time,
        "sync": plot.sync,
        "yFrom": _number(plot.y_from),
        "series": [
            {
                "label": series.label,
                "values": [_number(value) for value in series.values],
                "colour": series.colour,
                "dash": series.dash,
                "width": series.width,
                "fillTo": series.fill_to,
            }
            for series in plot.series
        ],
    }


def _number(value: float | None) -> float | None:
    """As JSON has it: not a number is nothing."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        f"<tr>{''.join(_cell(table, place, text) for place, text in enumerate(row))}</tr>" for row in table.rows
    )
    inner = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if table.folded:
        inner = (
            f"<details><summary>{escape(table.title)} ({len(table.rows)})</summary>{inner}{_note(table.note)}</details>"
        )
        return f'<section class="panel">{inner}</section>'
    return f'<section class="panel"><h2>{escape(table.title)}</h2>{inner}{_note(table.note)}</section>'


def _cell(table: Table, place: int, text: str) -> str:
    if place != table.bar:
        return f"<td>{escape(text)}</td>"
    share = min(1.0, max(0.0, float(text)))
    return f'<td><div class="bar"><i style="width:{100 * share:.2f}%"></i><b>{100 * share:.1f} %</b></div></td>'

"""A backtest for people: tables for a terminal and for Markdown, and a report page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from rich.table import Table as RichTable

from polcad.backtest import Result
from polcad.foresight import FORECASTER
from polcad.judging import LONG_ENOUGH, Score
from polcad.report import Figure, Plot, Series, Table, page

COLUMNS = (
    "forecaster",
    "horizon",
    "coverage",
    "worst part",
    "margin",
    "of persistence's",
    "MAPE",
    "pinball",
    "missed",
    "needless",
    "lead",
    "update",
)
NOTE = (
    "Coverage: of the bounds on the row's largest demand within the horizon, those that held. Margin: bound less "
    "demand. Missed: of the crossings, those announced too late or not. "
    f"?: the recording has fewer than {LONG_ENOUGH} horizons, too few to tell."
)
_NOTHING = "-"
_COLOURS = ("high", "upper", "demand", "budget", "lower", "muted")
_PLAIN = "persistence"  # POLCA's own margin: what others are measured by
_MARK = "<!-- backtest: {} -->"
_END = "<!-- end of backtest -->"


def title(result: Result) -> str:
    """A recording's name, without its folder."""
    return Path(result.recording).name


def subtitle(result: Result) -> str:
    """What it is, in a line."""
    return (
        f"{_time(result.seconds)}, a step of {result.step_s:.3g} s, budget {_watts(result.budget_w)}, "
        f"{result.parts or 'no'} parts; the first {_time(result.warmup_s)} are not judged"
    )


def rows(result: Result) -> list[tuple[str, ...]]:
    """A line a forecaster and horizon, under `COLUMNS`."""
    plain = _plain_w(result)
    return [
        (name, *_cells(score, plain.get(score.horizon_s))) for name, scores in result.scores.items() for score in scores
    ]


def _cells(score: Score, plain_w: float | None) -> tuple[str, ...]:
    crossings = sum(each.crossings for each in score.alarms)
    return (
        _time(score.horizon_s),
        _share(score.coverage) + ("" if score.long_enough else " ?"),
        _share(score.coverage_worst),
        _watts(score.margin_w),
        _of_plain(score, plain_w),
        _share(score.mape),
        _watts(score.pinball_w),
        f"{score.missed} of {crossings}",
        str(score.needless),
        _NOTHING if score.lead_s is None else _time(score.lead_s),
        f"{score.update_us:.0f} us",
    )


def table(result: Result) -> RichTable:
    """For a terminal."""
    shown = RichTable(title=f"{title(result)}: {subtitle(result)}", title_justify="left")
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=name == COLUMNS[0])
    last = ""
    for name, *cells in rows(result):
        if last and name != last:
            shown.add_section()
        shown.add_row(name if name != last else "", *cells)
        last = name
    return shown


def markdown(result: Result) -> str:
    """For a document."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(result)]
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"### {title(result)}\n\n{subtitle(result)}.\n\n{drawn}\n"


def put(document: str, results: Sequence[Result]) -> str:
    """The document with the tables of these recordings, each in place of an older one or at the end."""
    for result in results:
        mark = _MARK.format(title(result))
        text = f"{mark}\n{markdown(result)}{_END}\n"
        old = re.compile(f"{re.escape(mark)}.*?{re.escape(_END)}\n?", re.DOTALL)
        document, found = old.subn(lambda _, text=text: text, document, count=1)  # type: ignore[misc]  # bound now
        document += "" if found else f"\n{text}"
    return document


def report(results: Sequence[Result]) -> str:
    """One self-contained page."""
    names = list(dict.fromkeys(name for result in results for name in result.scores))
    parts = [part for result in results for part in _parts(result)]
    told = f"{', '.join(names)}: how far each bound stands above the demand, and whether it holds"
    return page("How forecasts of power did", told, list(_figures(results)), parts)


def _figures(results: Sequence[Result]) -> Iterator[Figure]:
    """Of every recording, the forecaster whose bound is drawn as a band."""
    for result in results:
        name = _band(result)
        score = next(each for each in result.scores[name] if each.horizon_s == result.excerpt.horizon_s)
        share = _of_plain(score, _plain_w(result).get(score.horizon_s))
        note = f"{name}, {_time(score.horizon_s)}: margin {_watts(score.margin_w)}, {share} of persistence's"
        yield Figure(title(result), _share(score.coverage), note)


def _band(result: Result) -> str:
    return FORECASTER if FORECASTER in result.scores else next(iter(result.scores))


def _plain_w(result: Result) -> dict[float, float | None]:
    return {score.horizon_s: score.margin_w for score in result.scores.get(_PLAIN, ())}


def _colours(result: Result) -> dict[str, str]:
    """The band's is the same on every page."""
    names = sorted(result.scores, key=lambda name: name != _band(result))
    return dict(zip(names, cycle(_COLOURS), strict=False))


def _parts(result: Result) -> Iterator[Plot | Table]:
    yield _rise(result)
    if len(next(iter(result.scores.values()))) > 1:  # no line runs through one point
        wanted = Series(f"{result.q:.4g} wanted", [result.q] * len(_horizons(result)), "muted", dash=True)
        yield _by_horizon(result, "Coverage", _lines(result, "coverage", 1.0), wanted)
        yield _by_horizon(result, "Margin, of the budget", _lines(result, "margin_w", result.budget_w))
    yield Table(f"{title(result)}: {subtitle(result)}", COLUMNS, rows(result), note=NOTE)


def _rise(result: Result) -> Plot:
    excerpt, budget_w, band, colours = result.excerpt, result.budget_w, _band(result), _colours(result)
    bounds = [
        Series(name, (upper_w / budget_w).tolist(), colours[name], fill_to=0 if name == band else None, width=1.2)
        for name, upper_w in excerpt.upper_w.items()
    ]
    demand = Series("demand", (excerpt.demand_w / budget_w).tolist(), "power", width=2)
    return Plot(
        f"{title(result)}: the largest rise, with bounds {_time(excerpt.horizon_s)} ahead, of the budget",
        ((excerpt.t - excerpt.t[0]) / 60).tolist(),
        [demand, *bounds],
        x_label="minutes",
        height_px=330,
        note="Each bound stands at the time at which it was made.",
    )


def _horizons(result: Result) -> list[str]:
    return [_time(score.horizon_s) for score in next(iter(result.scores.values()))]


def _by_horizon(result: Result, what: str, lines: Iterator[Series], *more: Series) -> Plot:
    horizons = _horizons(result)
    return Plot(
        f"{what} by horizon", list(map(float, range(len(horizons)))), [*lines, *more], x_names=horizons, half=True
    )


def _lines(result: Result, field: str, unit: float) -> Iterator[Series]:
    colours = _colours(result)
    for name, scores in result.scores.items():
        values = [getattr(score, field) for score in scores]
        yield Series(name, [None if value is None else value / unit for value in values], colours[name])


def _of_plain(score: Score, plain_w: float | None) -> str:
    return f"{score.margin_w / plain_w:.0%}" if plain_w and score.margin_w is not None else _NOTHING


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2%}"


def _watts(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.3g} W" if abs(value) < 1000 else f"{value / 1000:.3g} kW"  # noqa: PLR2004  # W in a kW


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"

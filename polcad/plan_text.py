"""A plan's answer for people: a table in words, and a report with plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polcad.plan import Answer, Size
from polcad.report import Figure, Plot, Series, Table, page

COLUMNS = ("servers", "thresholds", "peak", "brakes", "high P50", "high P99", "low P50", "low P99", "low locked", "")


def sentence(answer: Answer) -> str:
    """The answer in a sentence or two."""
    fits, last = answer.fits, answer.sizes[-1]
    if fits is None:
        return f"No server can be added: the row of {answer.servers} already breaks its terms ({last.broken})."
    limit = f"{last.servers} do not: {last.broken}." if last.broken else "More were not tried."
    return (
        f"{fits.servers} servers fit, {fits.servers - answer.servers} more than now, with {_thresholds(fits)} of "
        f"{answer.budget_w / 1000:.0f} kW. {limit} Judged on {answer.judged_days:.3g} days: fewer than "
        f"{answer.brakes_a_week:.2g} brakes a week, with 95 % certainty."
    )


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """A line a size, under `COLUMNS`; per cent, with the lowest and highest over seeds."""
    return [
        (
            str(size.servers),
            _thresholds(size),
            _span(size, "peak_frac"),
            f"{size.mean('brakes'):g}",
            *(_span(size, f"{name}_slowdown") for name in ("high_p50", "high_p99", "low_p50", "low_p99")),
            f"{size.mean('capped_hours_low'):.3g} h",
            size.broken or "fits",
        )
        for size in answer.sizes
    ]


def lines(answer: Answer) -> Iterator[str]:
    """The table, the sentence and what is assumed, as lines of a terminal."""
    table = [COLUMNS, *rows(answer)]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    for row in table:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield sentence(answer)
    for text in answer.assumptions:
        yield f"Assumed: {text}."


def report(answer: Answer) -> str:
    """One self-contained page."""
    fits = answer.fits
    figures = (
        Figure("Servers that fit", str(fits.servers) if fits else "none", f"now {answer.servers}", bad=fits is None),
        Figure("Thresholds", _thresholds(fits) if fits else "none", f"largest rise {answer.rise_frac:.1%}"),
        Figure(
            "Judged on", f"{answer.judged_days:.3g} days", f"a size; < {answer.brakes_a_week:.2g} brakes a week (95 %)"
        ),
    )
    table = Table("Sizes as they were tried", COLUMNS, rows(answer), note=sentence(answer))
    assumed = Table("What is assumed", ("",), [(text,) for text in answer.assumptions])
    title = f"How many servers fit under {answer.budget_w / 1000:.0f} kW"
    return page(
        title,
        f"Policy {answer.policy}; ranges are the lowest and highest over seeds",
        figures,
        [*_plots(answer.sizes), table, assumed],
    )


def _plots(sizes: Sequence[Size]) -> list[Plot]:
    if len(sizes) < 2:  # noqa: PLR2004  # no line runs through one point
        return []
    x = [float(size.servers) for size in sizes]
    peaks = [size.span("peak_frac") for size in sizes]
    power = Plot(
        "Peak power, of the budget",
        x,
        [
            Series("highest over seeds", [high for _, high in peaks], width=2, fill_to=1),
            Series("lowest over seeds", [low for low, _ in peaks], width=1),
            Series("budget", [1.0] * len(x), "budget"),
        ],
        x_label="servers",
        half=True,
    )
    slow = Plot(
        "Slowdown, highest over seeds",
        x,
        [
            Series(
                f"{priority} {name.upper()}",
                [size.span(f"{priority}_{name}_slowdown")[1] for size in sizes],
                priority,
                dash=name == "p99",
            )
            for priority in ("high", "low")
            for name in ("p50", "p99")
        ],
        x_label="servers",
        half=True,
    )
    return [power, slow]


def _thresholds(size: Size) -> str:
    return ", ".join(f"{name.upper()} {at:.1%}" for name, at in size.thresholds.items()) or "none"


def _span(size: Size, name: str) -> str:
    low, high = size.span(name)
    return f"{low:.1%}" if high - low < 0.0005 else f"{low:.1%}–{high:.1%}"  # noqa: PLR2004, RUF001  # as it is shown; a range

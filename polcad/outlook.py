"""What is expected of each domain's uncapped demand, and whether that has held of late.

A forecast is used only while it earns it: an outlook is doubted until enough of its bounds have been seen to hold, and
again when too few of the last hour's did. A policy then falls back to the plain rule; the event says so, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from polcad.forecast.coming import follows
from polcad.model import Event, EventKind, Outlook
from polcad.places import Flags, Floats
from polcad.ports import ForecasterMaker, Learner, School
from polcad.spec import GuardSpec

MOVED_FRAC = 0.05  # of a domain's nodes: while more of them change their settings, demand is too rough an estimate
_SHORTEST_STEP_S = 1.0  # a faster tick shows no more of what is to come
_JUDGED_OVER_S = 3600.0
_LEAST_JUDGED_S = 600.0  # less tells nothing about a bound that should fail once in a hundred
_LEAST_COVERAGE = 0.95  # of a 99 % bound: one burst may last for a minute of the hour, three mean that it is off


@dataclass(frozen=True, slots=True)
class Foresight:
    """How to look ahead: with what, where its lessons are held, how far beyond the latency, and how surely."""

    make: ForecasterMaker
    school: School
    hold_s: float = 300.0
    q: float = 0.99


class Outlooks:
    """The outlooks of one row's domains, by their place in `scopes`."""

    def __init__(self, scopes: Sequence[str], guard: GuardSpec, foresight: Foresight) -> None:
        self._scopes, self._foresight = tuple(scopes), foresight
        self._step_s = max(guard.tick_s, _SHORTEST_STEP_S)
        self._horizon_s = guard.latency_s
        self._forecaster = foresight.make(
            domains=len(scopes),
            step_s=self._step_s,
            horizons_s=(self._horizon_s, foresight.hold_s),
            quantiles=(0.5, foresight.q),
        )
        self._record = _Record(len(scopes), max(1, ceil(self._horizon_s / self._step_s)), self._step_s)
        self._in_lesson = False
        self._retired = False  # it failed: nothing is asked of it any more
        self._t = float("-inf")
        self._outlooks: list[Outlook | None] = [None] * len(scopes)

    def of(self, index: int) -> Outlook | None:
        """The outlook of one domain; None while its forecaster knows too little."""
        return self._outlooks[index]

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> list[Event]:
        """Take one tick's demand (W); what has changed about whom to believe."""
        step_s = t - self._t
        if self._retired or 0 <= step_s < 0.75 * self._step_s:  # ticks may come faster than steps
            return []
        if not follows(t, self._t, self._step_s):
            self._record.interrupt()
        self._t = t
        try:
            return self._look(t, demand_w, steady)
        except Exception as error:  # noqa: BLE001  # a forecaster found by name may raise anything, and the row goes on
            return self._retire(t, error)

    def _look(self, t: float, demand_w: Floats, steady: Flags) -> list[Event]:
        self._forecaster.observe(t, demand_w, steady)
        self._learn(t)
        uppers = {(at, q): self._forecaster.upper(at, q) for at in self._horizons for q in (0.5, self._foresight.q)}
        upper_w = uppers[self._horizon_s, self._foresight.q]
        self._record.note(demand_w, steady, upper_w, uppers[self._horizon_s, 0.5])
        return self._renew(t, upper_w, uppers[self._foresight.hold_s, self._foresight.q])

    def _retire(self, t: float, error: Exception) -> list[Event]:
        """Go on without the forecaster: policies act on what is measured."""
        self._retired = True
        self._outlooks = [None] * len(self._scopes)
        detail = f"the forecaster failed, and is not asked again before a restart: {type(error).__name__}: {error}"
        return [Event(t, EventKind.FORECAST_DOUBTED, scope, detail[:512]) for scope in self._scopes]

    @property
    def _horizons(self) -> tuple[float, float]:
        return self._horizon_s, self._foresight.hold_s

    def _learn(self, t: float) -> None:
        """Take a lesson's result, and begin the next when one is due."""
        forecaster, school = self._forecaster, self._foresight.school
        if not isinstance(forecaster, Learner):
            return
        if self._in_lesson:
            ended = school.ended()
            self._in_lesson = ended is None
            if ended:
                forecaster.learn(*ended)
        if not self._in_lesson and (lesson := forecaster.lesson(t)):
            school.begin(lesson)
            self._in_lesson = True

    def _renew(self, t: float, upper_w: Floats, hold_w: Floats) -> list[Event]:
        before, self._outlooks = (
            self._outlooks,
            [
                self._outlook(*each)
                for each in zip(upper_w.tolist(), hold_w.tolist(), *self._record.shares(), strict=True)
            ],
        )
        return [
            event
            for scope, old, new in zip(self._scopes, before, self._outlooks, strict=True)
            if (event := _change(t, scope, old, new))
        ]

    def _outlook(
        self, upper_w: float, hold_w: float, judged_s: float, coverage: float, error_frac: float
    ) -> Outlook | None:
        if not (upper_w >= 0.0 and hold_w >= 0.0):  # NaN compares false
            return None
        known = judged_s > 0.0
        doubt = ""
        if judged_s < _LEAST_JUDGED_S:
            doubt = f"only {judged_s:.0f} s of it have been judged, {_LEAST_JUDGED_S:.0f} s are needed"
        elif coverage < _LEAST_COVERAGE:
            doubt = f"only {coverage:.1%} of the last hour's bounds held, {_LEAST_COVERAGE:.0%} are needed"
        return Outlook(
            self._foresight.q,
            self._horizon_s,
            upper_w,
            self._foresight.hold_s,
            max(upper_w, hold_w),
            coverage if known else None,
            error_frac if known else None,
            doubt,
        )


def _change(t: float, scope: str, old: Outlook | None, new: Outlook | None) -> Event | None:
    believed, believes = (outlook is not None and not outlook.doubt for outlook in (old, new))
    if believed is believes:
        return None
    if believes:
        return Event(t, EventKind.FORECAST_OK, scope, "its bounds hold: policies that look ahead use them")
    why = new.doubt if new else "too little is known"
    return Event(t, EventKind.FORECAST_DOUBTED, scope, f"{why}: policies that look ahead act on what is measured")


class _Record:
    """How the bounds of the last hour came out, `lag` steps after they were given. Arrays have one column a domain."""

    def __init__(self, domains: int, lag: int, step_s: float) -> None:
        self._lag, self._step_s, self._k = lag, step_s, 0
        self._clean = np.zeros(domains, dtype=np.intp)  # steps without a doubt, up to now
        self._demand_w, self._upper_w, self._median_w = (np.full((lag, domains), np.nan) for _ in range(3))
        self._kept = np.zeros((3, max(1, round(_JUDGED_OVER_S / step_s)), domains))  # judged, held, error
        self._sums = np.zeros((3, domains))

    def interrupt(self) -> None:
        """Time was lost: judge no bound over the gap."""
        self._clean[:] = 0

    def note(self, demand_w: Floats, steady: Flags, upper_w: Floats, median_w: Floats) -> None:
        """Judge the bounds given `lag` steps ago, and keep those of now."""
        self._clean = np.where(steady & np.isfinite(demand_w), self._clean + 1, 0)
        place, row = self._k % self._lag, self._k % self._kept.shape[1]
        self._demand_w[place] = demand_w
        peak_w = self._demand_w.max(axis=0)
        judged = (self._clean > self._lag) & np.isfinite(self._upper_w[place])
        error = np.abs(self._median_w[place] - peak_w) / np.maximum(np.abs(peak_w), 1.0)
        new = np.where(judged, (np.ones_like(peak_w), peak_w <= self._upper_w[place], error), 0.0)
        self._sums += new - self._kept[:, row]
        self._kept[:, row] = new
        self._upper_w[place], self._median_w[place] = upper_w, median_w
        self._k += 1

    def shares(self) -> tuple[list[float], list[float], list[float]]:
        """By domain: how much time was judged (s), the share of bounds that held, the mean error."""
        judged, held, error = self._sums
        some = np.maximum(judged, 1.0)
        return (judged * self._step_s).tolist(), np.clip(held / some, 0.0, 1.0).tolist(), (error / some).tolist()

"""Hints for people and programs: what ``polcad hints`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polcad import words
from polcad.model import Hint

_NAMED = 8  # instances of a pool, with their shares


def as_object(hints: Sequence[Hint], t: float) -> dict[str, Any]:
    """One object for a pipe: the hints, each with its age and what is left of its life, s, and what all would save."""
    told = [asdict(hint) | {"age_s": round(t - hint.t, 3), "expires_in_s": _left_s(hint, t)} for hint in hints]
    return {"hints": told, "saves_w": _saves_w(hints, t)}


def table(hints: Sequence[Hint], t: float) -> RenderableType:
    """The hints as a table, and a sentence on what following them would save."""
    if not hints:
        return Text("No hints: no daemon of this site gives any now ([hints] in its configuration).")
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("Pool", "Instances", "GPUs each", "Clock", "Expected", "Power", "Saves", "Age", "Ends", "Why"):
        shown.add_column(name, overflow="fold")
    for hint in hints:
        shown.add_row(*map(Text, _cells(hint, t)), style="dim" if _left_s(hint, t) <= 0.0 else "")
    shares = [Text(_shares(hint)) for hint in hints if hint.weights and _left_s(hint, t) > 0.0]
    return Group(shown, Text(), *shares, Text(_sentence(hints, t)))


def _cells(hint: Hint, t: float) -> tuple[str, ...]:
    left_s = _left_s(hint, t)
    return (
        hint.pool,
        str(hint.instances),
        str(hint.tensor_parallel),
        words.percent(hint.clock_frac),
        f"{hint.requests_per_s:.3g}/s",
        words.watts(hint.power_w),
        "not known" if hint.saves_w is None else words.watts(hint.saves_w),
        words.duration(t - hint.t),
        f"in {words.duration(left_s)}" if left_s > 0.0 else "has ended",
        words.plain(hint.why),
    )


def _shares(hint: Hint) -> str:
    """How its instances should share a pool's requests, those that get least first."""
    ordered = sorted(hint.weights.items(), key=lambda pair: (pair[1], pair[0]))
    named = ", ".join(f"{words.plain(name)} {words.percent(share)}" for name, share in ordered[:_NAMED])
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"Shares of {hint.pool}'s requests: {named}{more}."


def _sentence(hints: Sequence[Hint], t: float) -> str:
    saves_w = _saves_w(hints, t)
    if saves_w is None:
        return "What following them would save is not known."
    now_w = words.watts(abs(saves_w))
    unknown = sum(hint.saves_w is None for hint in hints if _left_s(hint, t) > 0.0)
    rest = f"; of {unknown} it is not known" if unknown else ""
    return f"Following them would {'save' if saves_w >= 0.0 else 'cost'} {now_w} under the load now{rest}."


def _saves_w(hints: Sequence[Hint], t: float) -> float | None:
    """Of those that hold; None where it is known of none."""
    known = [hint.saves_w for hint in hints if hint.saves_w is not None and _left_s(hint, t) > 0.0]
    return sum(known) if known else None


def _left_s(hint: Hint, t: float) -> float:
    return round(hint.expires_t - t, 3)

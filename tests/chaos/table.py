"""The summary of a bench as a page of docs."""

from __future__ import annotations

import os
import platform
from argparse import Namespace
from collections.abc import Sequence
from itertools import starmap
from statistics import median

from tests.chaos.case import Case
from tests.chaos.judge import LEASE_S, REACTION_S, SLACK_S
from tests.chaos.row import BUDGET_W
from tests.chaos.run import Outcome
from tests.live_row import PERIOD_S, TICK_S

_COLUMNS = (
    *(
        "case",
        "what breaks",
        "held",
        "over budget, longest",
        "peak",
        "looser, longest",
        "unordered",
        "telemetry / events lost",
    ),
    *("recording / database lack", "recovery, median / worst", "may lose"),
)
_HEAD = """# {title}

By `make chaos {which}`: {runs},
seed {seed}, {jobs} rows at the same time on {cores} cores that had a load of {load:.1f} before, Python {python},
{took:.0f} s. One case alone:
`make chaos ARGS="--only kill-daemon --runs 3"`; `--stretch 10` leaves all broken ten times as long.

Real processes on real parts: three nodes of two fake A100 boards (the C fake of NVML), each with its agent and
actuator; the daemon, Mosquitto, a recorder, and InfluxDB where history is compared. A tick each {tick:g} s, a
reading each {period:g} s, leases of {lease:g} s. Each run drives the row from 70 % to 120 % of its {budget:.0f} W
and breaks it at one of four moments: before the rise, between reading and plan, in the brake, after the brake. It
stays broken for {hold}.

The judge reads the boards' own registers and what they draw each 10 ms, never polcad's word for it, and hears the
plans on the wire. In every run it asks, over all of it:

- The row is over its budget for no longer than the reaction time, {reaction:g} s here: a lease, a reading, and
  {slack:g} s for two cores that start programs at the same time.
- No board is looser than the newest plan, or than the fail-safe once that plan's lease has ended, for longer than
  that; a board whose node hears no plans may be as loose as the fail-safe of the last it heard. None is ever
  loosened without a plan that asks for it (*unordered*). Boards that nobody could set, since their actuator, driver
  or board is what was broken, are left out of this, not out of the row's power: others must make up for them.
- No program ends that nobody ended. Lost messages are counted by their sequence numbers, lost events against the
  daemon's log, the recording and the database against what was heard, each within the case's bound.
- A node that is silent, whose readings cannot be believed, or that does not obey, long enough to be noticed, is told
  in an event (`stale`, `sensor_fault`, `not_obeyed`); so is its end, once all is mended.
- Afterwards every node follows the plan, and every board is where it wants it. *Recovery* is from mending to that.

"""
_NOTES = """
`cut-` are a proxy before the broker: TCP delivers late what it holds back. `net-` are network namespaces on a
bridge, by cables of TAP devices that lose every frame, or some, or let each come late for itself, so that they overtake
each other (this kernel has no netem): nobody is told, and TCP sends again. `disk-` are small file systems that are
filled, mounted read-only, or frozen, so that who writes hangs; `full-` are limits on the size of files. Clocks are
moved by a library before libc, for each program its own. `upgrade-` and `mixed-` restart programs into what speaks as
an older or newer version of the wire would, fewer fields or unknown ones and unknown words; `hostile-` is a thief's
client at a broker with certificates and signed plans. Namespaces, control groups and file systems need root. What takes
minutes, networks cut for 30 s and 10 min, programs that stand still for 20 s, every pair killed at every moment:
[reliability-long.md](reliability-long.md); all else: [reliability.md](reliability.md).

Not tried here: disks that return what was never written, power cuts. A day of messages at speed: `make soak`."""

_LONG = {
    "title": "Reliability: the long cases",
    "which": "ARGS=--long CHAOS_OUT=docs/reliability-long.md",
    "runs": "as many runs as the table says",
    "hold": "as long as its case says, and for a random time where it says nothing",
}


def _short(runs: int) -> dict[str, str]:
    return {
        "title": "Reliability",
        "which": "CHAOS_OUT=docs/reliability.md",
        "runs": f"{runs} runs a case",
        "hold": "a random time",
    }


def page(found: Sequence[tuple[Case, Outcome]], options: Namespace, took_s: float, load: float) -> str:
    """The page, in Markdown. `load`: the machine's load average before the bench began."""
    head = _HEAD.format(
        **(_LONG if options.long else _short(options.runs)),
        seed=options.seed,
        jobs=options.jobs,
        load=load,
        cores=os.cpu_count(),
        python=platform.python_version(),
        took=took_s,
        tick=TICK_S,
        period=PERIOD_S,
        lease=LEASE_S,
        budget=BUDGET_W,
        reaction=REACTION_S,
        slack=SLACK_S,
    )
    failures = [f"- {outcome.name}: {what}" for _, outcome in found for what in outcome.failures]
    rest = ["", "What did not hold:", "", *failures] if failures else []
    rest += [_NOTES]
    ruled = f"|{'---|' * len(_COLUMNS)}"
    return head + "\n".join([_line(*_COLUMNS), ruled, *starmap(_row, found), *rest, ""])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _row(case: Case, outcome: Outcome) -> str:
    runs = outcome.runs
    if not runs:
        return _line(case.name, case.what, "0 of 0", *[""] * 7, case.may_lose)
    well = sum(not run.broken for run in runs)
    verdicts, recovered = [run.verdict for run in runs], [run.recovered_s for run in runs]
    lost = f"{sum(run.telemetry_lost for run in runs)} / {sum(run.events_lost for run in runs)}"
    history = "-" if outcome.recording_lost is None else f"{outcome.recording_lost} / {outcome.database_lost}"
    return _line(
        case.name,
        case.what,
        f"{well} of {len(runs)}",
        f"{max(each.over_s for each in verdicts):.2f} s",
        f"{max(each.peak_w for each in verdicts):.0f} W",
        f"{max(each.loose_s for each in verdicts):.2f} s",
        f"{sum(each.unordered for each in verdicts)}",
        lost,
        history,
        f"{median(recovered):.1f} / {max(recovered):.1f} s",
        case.may_lose,
    )

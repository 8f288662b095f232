"""Which daemon is followed: the one of the greatest epoch, by the nodes of a row as by the rows of a site.

An epoch is the microsecond at which a daemon started, by its own clock, which may be wrong. So it is a place in line,
not a time: whoever starts takes a greater one than it hears of. One follower may lie, or be alone in its error:

- One word makes a daemon that nobody follows yet rise, by a day at most, and ends nobody.
- What more than half of the listed followers say counts whatever it is. Where they follow somebody else now, that one
  leads, and this daemon ends. Where nobody leads them any more, or their epoch cannot be, this daemon outranks it.
- Where their clocks agree that this daemon's is wrong by more than an hour, theirs counts, and its epoch is taken anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from polcad.errors import OutrankedError

_EPOCHS_PER_S = 1_000_000
_DAY = 86_400 * _EPOCHS_PER_S  # an epoch further ahead of now than this is a fault, not a rival
_NEXT = 1_000  # epochs ahead of ours are our successors', whatever the clock says
_LAST = 2**52  # of the year 2112: who says more leaves no room for others
_APART_S = 3600.0  # clocks that differ by less do not matter
_HEALED_S = 20.0  # more than any tick
_FORGOTTEN_S = 3600.0  # no signature is let pass that is older (`signing.max_age_s`), so that nothing can be replayed
_SET_T = 1_735_689_600.0  # 2025: a clock that shows less, or more than `_LAST`, was never set, and says nothing


def epoch_at(t: float) -> int:
    """The epoch of a daemon that starts at Unix time `t`."""
    return int(max(0.0, t) * _EPOCHS_PER_S)


def is_absurd(epoch: int, t: float) -> bool:
    """Whether no daemon can have started at this epoch, were it Unix time `t` now."""
    return epoch > epoch_at(t) + _DAY


def forgotten(epoch: int, followed: int, silent_s: float) -> bool:
    """Whether a follower takes a lesser epoch than the one it followed, which was silent so long after its lease."""
    return epoch < followed and silent_s > _FORGOTTEN_S


def wrong_clock(behind_s: float, followers: str) -> str:
    """That a daemon's clock is behind those of its followers, for people."""
    way = "behind" if behind_s > 0 else "ahead of"
    return (
        f"this daemon's clock was {abs(behind_s) / 3600.0:.1f} h {way} those of more than half of the {followers} when "
        "it started: its epoch is by theirs; set whichever is wrong (chrony or systemd-timesyncd), for what is signed "
        "is refused meanwhile"
    )


@dataclass(frozen=True, slots=True)
class _Stray:
    """What a follower says that follows a greater epoch than ours."""

    epoch: int
    absurd: bool
    silent_t: float | None  # since when its lease has not run; None: it runs
    told: bool

    def lost(self, t: float) -> bool:
        """Whether nobody leads it who can be believed: a link that was cut heals, and a daemon needs a tick."""
        return self.absurd or (self.silent_t is not None and t - self.silent_t >= _HEALED_S)


class Rank:
    """One daemon's place among those that lead `what`. Times are Unix seconds of its clock, as it counts on them.

    `voters`: who may say that another one leads; it may grow.
    """

    def __init__(self, what: str, voters: Collection[str], epoch: int, counters: Counter[str]) -> None:
        self.epoch, self.seq = epoch, 0
        self.waits = False  # another daemon leads
        self._what, self._voters, self._counters = what, voters, counters
        self._followed = False  # by somebody
        self._begun = self._mended = False
        self._strays: dict[str, _Stray] = {}
        self._apart_s: dict[str, float] = {}  # by how much their clocks are ahead, of those that are far off

    @property
    def begun(self) -> bool:
        """Whether this daemon spoke, or was made the leader: a greater epoch is then that of a newer one."""
        return self._begun

    def speak(self) -> int:
        """The sequence of the next word."""
        self._begun = True
        self.seq += 1
        return self.seq

    def wait(self) -> None:
        """Outrank whatever is heard of, until `lead`."""
        self.waits = True

    def lead(self, epoch: int) -> None:
        """Lead with this epoch, or a greater one where such was heard of."""
        self.waits, self._begun, self._followed = False, True, True
        self.epoch = max(self.epoch, epoch)

    # --- whom others follow -----------------------------------------------------------------------------------------

    def meet(self, epoch: int, t: float) -> None:
        """Hear of another daemon. OutrankedError when it is newer, and this one had begun."""
        if self._absurd(epoch, t):
            self._counters["absurd_epochs"] += not self.waits
        elif epoch > self.epoch or (self.waits and epoch == self.epoch):
            if self._begun and not self.waits:
                raise OutrankedError(self._outranked(epoch))
            self.epoch = epoch + 1

    def hear(self, name: str, epoch: int, t: float, *, held: bool) -> bool:
        """Hear which epoch a follower follows, and whether its lease runs; whether it has just gone astray.

        OutrankedError when more than half of the voters follow a newer daemon.
        """
        if self.waits:
            self.meet(epoch, t)
            return False
        if epoch <= self.epoch:
            self._followed = self._followed or epoch == self.epoch
            self._strays.pop(name, None)
            return False
        absurd = self._absurd(epoch, t)
        self._counters["absurd_epochs"] += absurd
        if not absurd and not self._followed:
            self.epoch = epoch + 1
            return False
        if name not in self._voters:  # names can be made up
            return False
        before, tells = self._strays.get(name), self._begun or self._followed
        if before is not None and before.epoch != epoch:
            before = None
        since_t = before.silent_t if before else None
        self._strays[name] = _Stray(epoch, absurd, None if held else since_t or t, tells)
        self._judge(epoch, t)
        return tells and name in self._strays and not (before and before.told)

    def _judge(self, epoch: int, t: float) -> None:
        strays = self._strays.values()
        if self._is_most(sum(stray.silent_t is None and not stray.absurd for stray in strays)):
            raise OutrankedError(self._outranked(epoch))
        lost = sorted((stray.epoch for stray in strays if stray.lost(t)), reverse=True)
        if not self._is_most(len(lost)):
            return
        vouched = lost[len(self._voters) // 2]  # more than half of the voters say so much
        if vouched < _LAST:
            self.epoch, self._followed = vouched + 1, False
            self._strays = {name: stray for name, stray in self._strays.items() if stray.epoch > self.epoch}

    def _is_most(self, n: int) -> bool:
        return 2 * n > len(self._voters)

    def _outranked(self, epoch: int) -> str:
        return f"{self._what}: epoch {epoch} has it, this daemon is {self.epoch}"

    def _absurd(self, epoch: int, t: float) -> bool:
        return epoch > self.epoch + _NEXT and is_absurd(epoch, self.now(t))

    # --- clocks -----------------------------------------------------------------------------------------------------

    def note_clock(self, name: str, said_t: float, t: float) -> None:
        """Compare clocks: a follower's word of `said_t` by its own arrived at `t`."""
        ahead_s = said_t - t
        if not _SET_T <= said_t < _LAST / _EPOCHS_PER_S or -_APART_S < ahead_s < _APART_S:
            if self._apart_s:
                self._apart_s.pop(name, None)
        elif name in self._voters:
            self._apart_s[name] = ahead_s

    def behind_s(self) -> float:
        """By how much this clock is behind those of more than half of the voters; 0 where they do not say so."""
        if not self._is_most(len(self._apart_s)):
            return 0.0
        agree_s = [0.0] * (len(self._voters) - len(self._apart_s))
        ahead_s = sorted([*self._apart_s.values(), *agree_s])
        return min(ahead_s[(len(ahead_s) - 1) // 2], ahead_s[len(ahead_s) // 2], key=abs)

    def now(self, t: float) -> float:
        """What a right clock shows when this one shows `t`, as far as it is known."""
        return t + self.behind_s()

    def mend(self, t: float) -> float:
        """Take the epoch anew where this clock is wrong and nothing was said yet; by how much the clock is behind."""
        behind_s = self.behind_s()
        if behind_s and not self._begun and not self._mended:
            self._mended = True
            self.epoch = epoch_at(t + behind_s)
        return behind_s

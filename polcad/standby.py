"""One leader among the daemons of a row or a site: a lock settles who may begin, the epoch who is followed.

The lock is one entry of a store that compares before it sets. Who holds it writes it again several times within
`ttl_s`; who waits takes it once it has looked the same for that long, by its own monotonic clock: no two clocks need to
agree. Time between two looks counts for a quarter of that at most, for a daemon that stood still did not look. A look
counts only if the store could also write, so an engine that comes back gives the holder as long as those who wait.

The lock makes nothing safe by itself: a holder that was taken for dead may live. It is then outranked, for the entry
hands the epoch on, each taker's greater than the one before, and nodes follow the greatest. So a holder that loses the
engine goes on. Who does not hold the lock never begins without it: on the far side of a network that came apart, a
holder that lives looks as a dead one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Never, Protocol

from polcad.errors import UnavailableError
from polcad.model import Count, Text

LOOKS = 8  # within `ttl_s`
_FEWEST = 4  # from the first that found the lock as it is, however far apart
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands in the lock: who holds it and with which epoch; who gave it up leaves the epoch behind."""

    host: Annotated[str, Text(64)]  # "": nobody any more
    run: Annotated[str, Text(64)]  # of the daemon: hosts may be called alike
    epoch: Count


@dataclass(frozen=True, slots=True)
class Entry:
    """The lock as it was found."""

    claim: Claim
    revision: int  # another with each write


def lock_of(site: str, row: str = "") -> str:
    """The name of a row's lock; without one, of the site's own."""
    return f"{site}.{row}" if row else f"{site}/site"


class Store(Protocol):
    """The engine that keeps the lock. Both raise UnavailableError."""

    async def read(self) -> Entry | None:
        """What stands there now, None where nothing ever did; raises unless the engine could also write."""
        ...

    async def write(self, claim: Claim, revision: int) -> int | None:
        """Write over the entry of that revision (0: none); the new one's, or None where another wrote since."""
        ...

    async def close(self) -> None:
        """Leave it."""
        ...


class Contest:
    """One daemon's part in the contest for its row or site, for as long as it runs."""

    def __init__(self, store: Store, host: str, ttl_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self.leader = ""  # who held the lock when it was last looked at
        self.trouble = "the lock was not looked at yet"  # why the engine is no help; "" while it is
        self._store, self._run, self._ttl_s, self._monotonic = store, uuid.uuid4().hex, ttl_s, monotonic
        self._won = asyncio.Event()
        self._held = Entry(Claim("", "", 0), 0)  # what we last wrote
        self._seen: Entry | None = None
        self._looked_s: float | None = None  # None: the last look failed
        self._same_s = 0.0  # for which it was found unchanged

    @property
    def leads(self) -> bool:
        """Whether it was ours to lead once: who took the lock since must outrank us."""
        return self._won.is_set()

    async def won(self) -> int:
        """Wait until it is ours to lead: our epoch, greater than any that was in the lock before."""
        await self._won.wait()
        return self._held.claim.epoch

    async def won_while(self, *hearing: Coroutine[Any, Any, object]) -> int:
        """Let these run until it is ours to lead, and no longer: our epoch."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work, name="waiting") for work in hearing]
            epoch = await self.won()
            for task in running:
                task.cancel()
        return epoch

    async def run(self, bid: Callable[[], int | None]) -> Never:
        """Contend for the lock, and keep it, until cancelled, which gives it up at once.

        `bid` tells the epoch that this daemon has or would take; None while it could not lead.
        """
        task = asyncio.current_task()
        try:
            while not (task and task.cancelling()):  # a client's wait_for may lose a cancellation before Python 3.12
                await self._turn(bid)
                await asyncio.sleep(self._ttl_s / LOOKS)
            raise asyncio.CancelledError
        finally:
            await self._leave()

    async def _turn(self, bid: Callable[[], int | None]) -> None:
        try:
            await self._contend(bid())
        except UnavailableError as error:
            self._looked_s = None
            self._note(str(error))
        else:
            self._note("")

    async def _contend(self, epoch: int | None) -> None:
        seen = await self._store.read()
        self._look(seen)
        ours = seen is not None and seen.claim.run == self._run
        if epoch is None or not (ours or self._free):
            return
        if seen is not None:
            epoch = max(epoch, seen.claim.epoch + (not ours))
        claim = Claim(self.host, self._run, epoch)
        revision = await self._store.write(claim, seen.revision if seen else 0)
        if revision is not None:
            self._take(Entry(claim, revision))

    def _look(self, seen: Entry | None) -> None:
        before_s, self._looked_s = self._looked_s, self._monotonic()
        if before_s is None or seen != self._seen:
            self._same_s = 0.0
        else:
            self._same_s += min(self._looked_s - before_s, self._ttl_s / _FEWEST)
        self._seen = seen
        leader = seen.claim.host if seen else ""
        if leader != self.leader:
            _LOG.info("the lock: %s", f"{leader} holds it" if leader else "nobody holds it")
        self.leader = leader

    @property
    def _free(self) -> bool:
        """Whether nobody holds it; one that is not there may be lost, and its holder alive."""
        return self._same_s >= self._ttl_s or (self._seen is not None and not self._seen.claim.host)

    def _take(self, entry: Entry) -> None:
        self._held = self._seen = entry
        self.leader = self.host
        self._won.set()

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _LOG.warning("%s; %s", trouble, "this daemon leads on" if self.leads else "it waits")
        elif self.trouble and not trouble:
            _LOG.info("the engine of the lock answers")
        self.trouble = trouble

    async def _leave(self) -> None:
        """Give up what we hold, so that nobody need wait for its end."""
        with contextlib.suppress(UnavailableError):
            if self._held.revision:
                await self._store.write(Claim("", self._run, self._held.claim.epoch), self._held.revision)
        await self._store.close()

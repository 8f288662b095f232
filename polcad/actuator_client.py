"""The agent's side of the actuator's socket: a `polcad.follower.PlanFollower` in another process.

Every call is one request with a deadline. One that fails ends the connection, and the next call makes a new one: so
either side may be started again at any time. A placement goes out again with each plan, for an actuator that is new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from polcad.actuator_wire import ANSWERS, MAX_FRAME_BYTES, Answer, Request, framed, receive
from polcad.errors import UnavailableError, WireError
from polcad.follower import Followed
from polcad.model import NodePlacement, Plan

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ActuatorClient:
    """Speaks to the actuator at `path`. A call raises UnavailableError when nothing answers within `deadline_s`."""

    def __init__(self, path: str, deadline_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wake = asyncio.Event()
        self._path, self._deadline_s, self._monotonic = path, deadline_s, monotonic
        self._turn = asyncio.Lock()
        self._streams: Streams | None = None
        self._placement: NodePlacement | None = None  # None: not heard of yet, the actuator's own counts
        self._ends = float("-inf")

    async def offer(self, plan: Plan, t: float, signed: bytes = b"") -> None:
        """Hand the plan on; a signed one as it was heard. However long that takes, its lease counts from `t`."""
        await self._ask(Request(None if signed else plan, signed.decode(), t, self._placement))

    async def place(self, placement: NodePlacement) -> None:
        """Hand the placement on, and keep it."""
        self._placement = placement
        await self._ask(Request(placement=placement))

    async def settle(self, uuids: Iterable[str] = ()) -> Followed:
        """Let the actuator settle; it knows its GPUs by itself."""
        del uuids
        self.wake.clear()
        answer = await self._ask(Request(settle=True))
        if answer.in_force is None:
            raise UnavailableError(f"actuator {self._path}: it does not tell what is in force")
        return Followed(answer.in_force, answer.obedience)

    def remaining_s(self) -> float:
        """Seconds until the lease ends, by the actuator's last answer; not positive once it has."""
        return self._ends - self._monotonic()

    async def close(self) -> None:
        """Hang up."""
        self._hang_up()

    async def _ask(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self._deadline_s), self._turn:
                answer = await self._exchange(request)
        except TimeoutError:
            raise UnavailableError(f"actuator {self._path}: no answer within {self._deadline_s:g} s") from None
        except (OSError, EOFError) as error:
            raise UnavailableError(f"actuator {self._path}: {error}: is polcad-actuator running?") from None
        self._ends = self._monotonic() + answer.remaining_s
        if answer.refusal:
            raise WireError(answer.refusal)
        if answer.changed:
            self.wake.set()
        return answer

    async def _exchange(self, request: Request) -> Answer:
        """One request and its answer. What comes in between ends the connection: an answer may still be on its way."""
        reader, writer = self._streams or await asyncio.open_unix_connection(self._path, limit=MAX_FRAME_BYTES)
        self._streams = (reader, writer)
        answered = False
        try:
            writer.write(framed(request))
            await writer.drain()
            answer = await receive(reader, ANSWERS)
            answered = True
        finally:
            if not answered:
                self._hang_up()
        return answer

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

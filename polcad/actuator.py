"""`polcad actuator`: sets a node's GPUs by the plans it is handed over a Unix socket, and needs nobody to stay safe.

It is the one program of a node that needs a privilege, and it speaks to no network. It holds the lease: the agent hands
it each plan whole, it counts on its own clock, keeps the last plan on disk, and falls to the fail-safe setpoint by
itself when plans no longer come, whether the agent, the broker or the daemon is gone. Nothing goes below the bounds
that root wrote (`polcad.devices.bounded`). Only root and one user may speak to it, as the kernel says who they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from polcad import service
from polcad.actuator_wire import LONGEST_S, REQUESTS, Answer, Request, framed, receive
from polcad.alone import alone
from polcad.complaints import Complaints
from polcad.config import ActuatorSpec, Config
from polcad.devices.bounded import BoundedDevice, Bounds, read_bounds
from polcad.errors import ConfigError, PolcadError, WireError
from polcad.follower import Follower, build_collector, build_device, check_parts, rest
from polcad.model import Plan
from polcad.ports import Closable
from polcad.wire import Address

_LOG = logging.getLogger(__name__)
_PERIOD_S = 5.0  # between two looks of its own; an agent asks for more
_AGAIN_S = 0.5  # after a look that failed: what was to be set is not
_MAX_SPEAKERS = 8
_PEER = struct.Struct("3i")  # pid, uid, gid


class Actuator:
    """Serves the socket, and keeps the GPUs where the lease wants them. `users` are the user ids that may speak.

    With `believe`, plans are taken only as they were heard, and only if it makes a plan of them: a stolen agent can
    then hand over nothing that the daemon has not signed.
    """

    def __init__(
        self,
        follower: Follower,
        users: frozenset[int],
        monotonic: Callable[[], float] = time.monotonic,
        believe: Callable[[bytes], Plan] | None = None,
    ) -> None:
        self._follower, self._users, self._monotonic, self._believe = follower, users, monotonic, believe
        self._speakers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._complaints = Complaints(_LOG)

    async def run(self, listening: socket.socket) -> None:
        """Until cancelled. GPUs stay as they are then."""
        async with await asyncio.start_unix_server(self._serve, sock=listening):
            try:
                await self._keep()
            finally:
                await self._hang_up()
                await self._follower.close()

    async def _keep(self) -> None:
        while True:
            plan, wait_s = None, _AGAIN_S
            try:
                followed = await self._follower.settle()
                plan, wait_s = followed.obedience, _PERIOD_S
                service.alive(f"{len(followed.in_force.uuid)} GPUs, plan {plan.lease.value if plan else 'unknown'}")
            except PolcadError as error:
                self._complaints.add("gpus", str(error), self._monotonic())
                service.alive(str(error))
            await rest(self._follower, wait_s, plan)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to its end; a stranger is told so, and what is not a request ends it."""
        self._speakers[writer] = asyncio.current_task()
        try:
            self._admit(writer.get_extra_info("socket"))
            while True:
                writer.write(framed(await self._answer(await receive(reader, REQUESTS))))
                await writer.drain()
        except (EOFError, ConnectionError):
            pass  # it has hung up
        except WireError as error:
            self._complaints.add("socket", str(error), self._monotonic())
            writer.write(framed(Answer(refusal=str(error)[:1024])))
        finally:
            del self._speakers[writer]
            writer.close()

    async def _hang_up(self) -> None:
        """End every connection, and wait for its last answer."""
        for writer in self._speakers:
            writer.close()
        if serving := [task for task in self._speakers.values() if task]:
            await asyncio.wait(serving)

    def _admit(self, peer: socket.socket) -> None:
        """WireError for who may not speak; the kernel says who it is."""
        uid = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
        if uid not in self._users:
            allowed = ", ".join(map(str, sorted(self._users)))
            raise WireError(f"user {uid} may not speak to the actuator: allowed are users {allowed}")
        if len(self._speakers) > _MAX_SPEAKERS:
            raise WireError(f"{_MAX_SPEAKERS} connections are open")

    async def _answer(self, request: Request) -> Answer:
        follower, refusal = self._follower, ""
        in_force, obedience = None, None
        try:
            if request.placement is not None:
                await follower.place(request.placement)
            plan = self._plan(request)
            if plan is not None:
                await follower.offer(plan, min(request.heard_s, self._monotonic()))
            if request.settle:
                followed = await follower.settle()
                in_force, obedience = followed.in_force, followed.obedience
        except PolcadError as error:
            refusal = str(error)[:1024]
        left_s = min(max(0.0, follower.remaining_s()), LONGEST_S)  # a difference of floats may pass both
        return Answer(refusal, follower.wake.is_set(), left_s, in_force, obedience)

    def _plan(self, request: Request) -> Plan | None:
        if self._believe and request.heard:
            return self._believe(request.heard.encode())
        if request.heard or (self._believe and request.plan is not None):
            raise WireError("agent and actuator do not agree whether plans are signed: mend [signing] for both")
        return request.plan


def believer(config: Config) -> Callable[[bytes], Plan] | None:
    """What makes a plan of a signed payload; None where signatures are not asked for. ConfigError for bad keys."""
    trust, topic = config.signing.trust(), Address(config.site.name, config.agent.row, "plan").topic
    return None if trust is None else lambda payload: trust.plan(topic, payload, time.time())


def users_of(spec: ActuatorSpec) -> frozenset[int]:
    """The user ids that may speak; ConfigError when there is no such user."""
    try:
        return frozenset({0, pwd.getpwnam(spec.user).pw_uid})
    except KeyError:
        raise ConfigError(f"actuator.user={spec.user!r}: there is no such user: make it, or name another") from None


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """A listening socket that owner and group may use, in the place of one left behind; ConfigError."""
    with socket.socket(socket.AF_UNIX) as made:
        try:
            path.unlink(missing_ok=True)
            made.bind(str(path))
            path.chmod(0o660)  # before it listens, so nobody gets in between
            made.listen(_MAX_SPEAKERS)
        except OSError as error:
            raise ConfigError(f"actuator.socket={str(path)!r}: {error.strerror or error}") from None
        try:
            yield made
        finally:
            path.unlink(missing_ok=True)


def usable(config: Config) -> Config:
    """The same configuration, for an actuator; ConfigError when anything that it names cannot be used."""
    _trusted(config)
    check_parts(config.agent)
    return config


def _trusted(config: Config) -> tuple[frozenset[int], Bounds, Callable[[bytes], Plan] | None]:
    """Who may speak, how low they may go, and whose plans are believed; ConfigError."""
    spec = config.actuator
    if not spec.socket:
        raise ConfigError("actuator.socket is not set: the agent sets the GPUs itself. Name the socket for both")
    return users_of(spec), read_bounds(Path(spec.bounds)), believer(config)


async def run(config: Config) -> None:
    """The actuator that a configuration describes, until cancelled; ConfigError, UnavailableError."""
    spec, setting = config.actuator, config.setting
    users, bounds, believe = _trusted(config)
    with alone(Path(spec.state_dir)):
        collector = build_collector(setting)
        try:
            follower = Follower(setting, BoundedDevice(build_device(setting, collector), bounds))
            with listening_at(Path(spec.socket)) as listening:
                await Actuator(follower, users, believe=believe).run(listening)
        finally:
            if isinstance(collector, Closable):
                collector.close()

"""The lock of `polcad.standby` as an entry of a key-value store of NATS JetStream. The one file that knows nats-py.

A connection that failed once is not used again: the client would send later what waited for its return, and may take
minutes to give up a server that stands still. The next call finds another server of the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.errors import (
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    ServiceUnavailableError,
)
from nats.js.kv import KeyValue

from polcad.broker_spec import TlsSpec
from polcad.codec import Codec
from polcad.errors import UnavailableError
from polcad.standby import Claim, Entry
from polcad.standby_spec import StandbySpec

T = TypeVar("T")
_CLAIM = Codec(Claim)
_LOG = logging.getLogger("polcad.standby.client")


class NatsStore:
    """The entry `key`; whatever is asked of it may take `answer_s`."""

    def __init__(self, spec: StandbySpec, key: str, answer_s: float) -> None:
        self._spec, self._key, self._answer_s = spec, key, answer_s
        self._client = Client()
        self._bucket: KeyValue | None = None  # while the connection is good

    async def read(self) -> Entry | None:
        """As `Store` says; the entry beside it is there to be written, and means nothing."""

        async def work(bucket: KeyValue) -> Entry | None:
            await bucket.put(f"{self._key}.looked", b"")
            with contextlib.suppress(KeyNotFoundError):
                found = await bucket.get(self._key)
                return Entry(_CLAIM.decode(found.value or b""), found.revision or 0)
            return None

        return await self._ask(work)

    async def write(self, claim: Claim, revision: int) -> int | None:
        """As `Store` says."""

        async def work(bucket: KeyValue) -> int | None:
            with contextlib.suppress(KeyWrongLastSequenceError):
                if revision:
                    return await bucket.update(self._key, _CLAIM.encode(claim), last=revision)
                return await bucket.create(self._key, _CLAIM.encode(claim))
            return None

        return await self._ask(work)

    async def close(self) -> None:
        """Leave the server."""
        self._bucket = None
        with contextlib.suppress(Exception):  # of what is left behind nothing is needed
            async with asyncio.timeout(self._answer_s):
                await self._client.close()

    async def _ask(self, work: Callable[[KeyValue], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._answer_s):
                return await work(self._bucket or await self._open())
        except Exception as error:  # whatever a client of an engine meets, a row that is led goes on
            self._bucket = None
            raise UnavailableError(f"NATS {', '.join(self._spec.servers)}: {self._reason(error)}") from error

    async def _open(self) -> KeyValue:
        await self.close()
        self._client = Client()
        tls = self._spec.tls or (TlsSpec() if any(each.startswith("tls:") for each in self._spec.servers) else None)
        await self._client.connect(
            list(self._spec.servers),
            name=f"polcad {self._key}",
            user=self._spec.user or None,
            password=self._spec.password(),
            tls=tls.context(section="standby") if tls else None,
            connect_timeout=self._answer_s / 2,  # type: ignore[arg-type]  # any number serves
            allow_reconnect=False,
            error_cb=_note,
        )
        self._bucket = await self._find_bucket()
        return self._bucket

    async def _find_bucket(self) -> KeyValue:
        stream = self._client.jetstream(timeout=self._answer_s)
        try:
            return await stream.key_value(self._spec.bucket)
        except BucketNotFoundError:
            return await stream.create_key_value(
                bucket=self._spec.bucket, description="polcad: who leads each row", replicas=self._spec.replicas
            )

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._answer_s:g} s"
        if isinstance(error, NoRespondersError | ServiceUnavailableError):
            return "JetStream does not answer: is it enabled there, and has its cluster a leader?"
        return str(error) or type(error).__name__


async def _note(error: Exception) -> None:
    """What the client meets beside what it was asked."""
    _LOG.debug("%s", error)

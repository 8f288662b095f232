"""What agent and actuator say to each other over their Unix socket: a request, its answer, one after another.

A frame is four bytes of length, the highest first, and so many bytes of JSON. Every number in it is bounded by its
noun, its size by `MAX_FRAME_BYTES`; what is not a frame ends the connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, TypeVar

from polcad.codec import Codec
from polcad.errors import WireError
from polcad.model import InForce, NodePlacement, Obedience, Plan, Range, Text
from polcad.wire import MAX_PAYLOAD_BYTES

T = TypeVar("T")
MAX_FRAME_BYTES = 2 * MAX_PAYLOAD_BYTES  # a plan and a placement, each as long as the broker's wire lets it be
_HEAD_BYTES = 4

LONGEST_S = 3600.0  # of a lease
Span = Annotated[float, Range(0.0, LONGEST_S)]
Moment = Annotated[float, Range(0.0, 1e10)]


@dataclass(frozen=True, slots=True)
class Request:
    """What the agent wants: a plan followed, a placement known, the GPUs settled and told; None and False: nothing."""

    plan: Plan | None = None
    heard: Annotated[str, Text(MAX_PAYLOAD_BYTES)] = ""  # the plan as the broker carried it, instead: it is signed
    heard_s: Moment = 0.0  # when the agent heard the plan, on this host's monotonic clock: its lease counts from there
    placement: NodePlacement | None = None
    settle: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it. `in_force` and `obedience` are there where settling was asked for and went well."""

    refusal: Annotated[str, Text(1024)] = ""
    changed: bool = False  # something else is wanted than was settled last
    remaining_s: Span = 0.0  # of the lease
    in_force: InForce | None = None
    obedience: Obedience | None = None


REQUESTS, ANSWERS = Codec(Request), Codec(Answer)


def framed(noun: Request | Answer) -> bytes:
    """The frame; WireError when it would be too long."""
    payload = Codec.encode(noun)
    if len(payload) > MAX_FRAME_BYTES:
        raise WireError(f"{len(payload)} bytes are more than {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(_HEAD_BYTES, "big") + payload


async def receive(reader: asyncio.StreamReader, codec: Codec[T]) -> T:
    """The noun of the next frame; WireError when it is none, EOFError when the other side has ended."""
    size = int.from_bytes(await reader.readexactly(_HEAD_BYTES), "big")
    if size > MAX_FRAME_BYTES:
        raise WireError(f"{size} bytes are more than {MAX_FRAME_BYTES}")
    return codec.decode(await reader.readexactly(size))

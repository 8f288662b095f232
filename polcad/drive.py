"""The one loop that serves a live row, a recording and a model."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol

from polcad.ports import Actuator, Input, Output


class Decider(Protocol):
    """What turns events into plans: `polcad.controller.Controller`."""

    def on(self, event: Input) -> list[Output]:
        """Take one event; what is to be said."""
        ...


async def drive(events: AsyncIterable[Input], controller: Decider, actuator: Actuator) -> None:
    """Feed the controller and carry out what it says, until the events end."""
    async for event in events:
        for output in controller.on(event):
            await actuator.apply(output)

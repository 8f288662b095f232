"""Runs `polcad` as an older or a newer version of wire v1 would: ``python versions.py newer daemon -c FILE``.

An older version knows fewer fields than this one, so it leaves out all that have a default and decide nothing. A newer
one adds a field to every noun, says causes and events in words of its own, and speaks of `polcad/v2` beside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import msgspec

from polcad import mqtt
from polcad.cli import main
from polcad.codec import Codec
from polcad.model import EventKind, Why
from polcad.wire import ROOT, Message

_KEPT = {"in_force", "plan", "rules", "detail"}  # what decides, or must not be missing beside its columns
_ADDED = {"of_tomorrow": {"deep": [1, "two", None]}}


def newer(noun: Any) -> Any:
    """The noun as a version of tomorrow says it."""
    if isinstance(noun, Why | EventKind):
        return f"{noun}_of_tomorrow"
    if is_dataclass(noun):
        return {item.name: newer(getattr(noun, item.name)) for item in fields(noun)} | _ADDED
    return _inside(noun, newer)


def older(noun: Any) -> Any:
    """The noun as a version of yesterday says it."""
    if not is_dataclass(noun):
        return _inside(noun, older)
    known = [item.name for item in fields(noun) if item.name in _KEPT or _mattered(item, getattr(noun, item.name))]
    return {name: older(getattr(noun, name)) for name in known}


def _mattered(item: Any, value: Any) -> bool:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return bool(value != default)


def _inside(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple | list):
        return [change(each) for each in value]
    if isinstance(value, Mapping):
        return {key: change(each) for key, each in value.items()}
    return value


def speak(change: Callable[[Any], Any]) -> None:
    """Let this process say every noun so, to the broker, to its actuator and to its disk."""
    Codec.encode = staticmethod(lambda noun: msgspec.json.encode(change(noun)))  # type: ignore[method-assign]  # this process is that version


def speak_v2_too() -> None:
    """Let this process say all that it sends a second time, under the major version after this one."""
    send = mqtt.Link.send

    def twice(link: mqtt.Link, message: Message) -> None:
        send(link, message)
        send(link, message._replace(topic=message.topic.replace(ROOT, "polcad/v2", 1), payload=b'{"v":2}'))

    mqtt.Link.send = twice  # type: ignore[method-assign, assignment]  # as above


if __name__ == "__main__":
    version = sys.argv.pop(1)
    speak({"newer": newer, "older": older}[version])
    if version == "newer":
        speak_v2_too()
    main()

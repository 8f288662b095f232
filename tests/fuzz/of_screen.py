"""What a stranger says, as a terminal shows it: no message upsets the view, or gives the terminal orders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO

from rich.console import Console, Group

from polcad.backlog import Received
from polcad.explain import explain
from polcad.hints_text import as_object, table
from polcad.model import Hint
from polcad.top import Screen
from polcad.wire import Message, encode
from tests.fuzz.of_wire import believed
from tests.test_wire import NOUNS

_T = 1.8e9
_KINDS = tuple(NOUNS)


def screen(data: bytes) -> None:
    """Messages, parted by zeros, each after the number of its kind; then all that shows them."""
    shown, hints = Screen(lambda: _T), []
    shown.put(Received(_T, encode(*NOUNS["daemon"])))
    for each in data.split(b"\0")[:16]:
        address, _ = NOUNS[_KINDS[each[0] % len(_KINDS) if each else 0]]
        message = Message(address.topic, each[1:])
        shown.put(Received(_T, message))
        noun = believed(message)
        hints += [noun] if isinstance(noun, Hint) else []
    json.dumps(as_object(hints, _T))
    lines = explain(shown._status[1], shown.nodes(_T), age_s=1.0) if shown._status else ()
    console = Console(file=StringIO(), width=100, color_system=None, force_terminal=False)
    console.print(Group(shown.draw(), table(hints, _T)))
    console.print("\n".join(lines), markup=False)
    told = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert not [sign for sign in told if sign != "\n" and not sign.isprintable()]


def screen_seeds() -> Iterator[bytes]:
    payloads = {kind: encode(*NOUNS[kind]).payload for kind in _KINDS}
    yield b"\0".join(bytes([place]) + payloads[kind] for place, kind in enumerate(_KINDS) if place)
    for place, kind in enumerate(_KINDS):
        yield bytes([place]) + payloads[kind]

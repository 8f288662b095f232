"""What a program tells the service manager that started it, if one did (systemd's notify protocol)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def alive(status: str, environ: Mapping[str, str] = os.environ) -> None:
    """Say that the start is over, that the main loop has turned, and how things stand. Never blocks, never raises.

    To be called by the loop itself, at each turn: a loop that stands still is then found by the manager's watchdog.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
        text = f"READY=1\nWATCHDOG=1\nSTATUS={status}"
        manager.sendto(text.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)

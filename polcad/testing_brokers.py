"""A real Mosquitto for tests and benchmarks, on a free port of 127.0.0.1, gone when the block ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 5.0
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin"


class Mosquitto:
    """One Mosquitto process: `conf` are lines of its configuration, in which ``{port}`` stands for the port chosen.

    Without a ``listener`` line it listens on 127.0.0.1 and lets everyone in. RuntimeError when it does not start.
    """

    def __init__(self, folder: Path, conf: Sequence[str] = ()) -> None:
        self.port = free_port()
        lines = [line.format(port=self.port) for line in conf]
        if not any(line.startswith("listener ") for line in lines):
            lines += [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        self._conf = folder / f"mosquitto-{self.port}.conf"
        self._conf.write_text("\n".join([*lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("mosquitto", path=_PATH)
        if program is None:
            raise RuntimeError("mosquitto is not installed: apt-get install mosquitto")
        log = self._conf.with_suffix(".log")
        with log.open("ab") as out:
            self._process = subprocess.Popen([program, "-c", self._conf], stdout=out, stderr=out)  # noqa: S603  # ours
        deadline_s = time.monotonic() + START_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError(f"mosquitto did not start: {log.read_text()}")
            time.sleep(0.01)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; what it had in memory is gone."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(timeout=5.0)
            self._process = None

    def reload(self) -> None:
        """Let it read its access list and its certificates again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing moves until `resume` or `stop`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


StartMosquitto = Callable[..., Mosquitto]  # the lines of a configuration in, a running broker out


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False

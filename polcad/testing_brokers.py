"""A real Mosquitto for tests and benchmarks, on a free port of 127.0.0.1, gone when the block ends.

`polcad.testing_nats` has the other broker.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 20.0  # on a busy machine
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin"


class Server(ABC):
    """One process of a server, which may be started and ended again and again."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What starts it; RuntimeError when it is not installed."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it, and return at once."""
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(self.command(), stdout=out, stderr=out)  # noqa: S603  # ours

    def wait_ready(self) -> None:
        """Return once it is ready; RuntimeError, with what it logged, when it ends first or never is."""
        deadline_s = time.monotonic() + START_S
        while not self.ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError(f"{self.command()[0]} did not start: {self.log.read_text()}")
            time.sleep(0.01)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; what it had in memory is gone."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.send_signal(signal.SIGCONT)  # one that is paused would not hear it
            self._process.wait(timeout=10.0)
            self._process = None

    def reload(self) -> None:
        """Let it read its configuration, access list and certificates again."""
        self._signal(signal.SIGHUP)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing moves until `resume` or `stop`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class Mosquitto(Server):
    """One Mosquitto process: `conf` are lines of its configuration, in which ``{port}`` stands for the port chosen.

    Without a ``listener`` line it listens on 127.0.0.1 and lets everyone in. RuntimeError when it does not start.
    """

    def __init__(self, folder: Path, conf: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._conf = folder / f"mosquitto-{self.port}.conf"
        super().__init__(self._conf.with_suffix(".log"))
        lines = [line.format(port=self.port) for line in conf]
        if not any(line.startswith("listener ") for line in lines):
            lines += [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        self._conf.write_text("\n".join([*lines, ""]))

    def command(self) -> Sequence[str | Path]:
        """Mosquitto with its configuration."""
        return [program("mosquitto"), "-c", self._conf]

    def ready(self) -> bool:
        """Whether it takes connections."""
        return answers(self.port)


StartMosquitto = Callable[..., Mosquitto]  # the lines of a configuration in, a running broker out


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of a server's program; RuntimeError names its Debian package, which is called the same."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise RuntimeError(f"{name} is not installed: apt-get install {name}")
    return found


def answers(port: int) -> bool:
    """Whether anybody takes a connection there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False

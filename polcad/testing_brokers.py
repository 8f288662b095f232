"""A real Mosquitto for tests and benchmarks, or two with a bridge, on free ports of 127.0.0.1, gone with the block.

`polcad.testing_nats` has the other broker.
"""

from __future__ import annotations

import contextlib
import re
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

from polcad.broker_spec import BrokerSpec

START_S = 20.0  # on a busy machine
_TOLD = 4000  # characters of a log that an error shows
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin"


class Broker(ABC):
    """What a row's programs speak through: a broker, a cluster, or two with a bridge; it ends with the block."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    @abstractmethod
    def port(self) -> int:
        """The port for who takes one address only: of a cluster, a node's; of two with a bridge, the upper one's."""

    @abstractmethod
    def spec(self, name: str) -> BrokerSpec:
        """How the program of that name reaches it."""

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it serves; RuntimeError when it does not."""

    @abstractmethod
    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; what it had in memory is gone."""


class Server(Broker):
    """One process of a server, which may be started and ended again and again."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

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
                raise RuntimeError(f"{self.command()[0]} did not start: {self.log.read_text()[-_TOLD:]}")
            time.sleep(0.02)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; what it had in memory is gone."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.send_signal(signal.SIGCONT)  # one that is paused would not hear it
            self._process.wait(timeout=10.0)
            self._process = None

    @property
    def pid(self) -> int:
        """The process; RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.command()[0]} does not run")
        return self._process.pid

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
        self._port = free_port()
        self._conf = folder / f"mosquitto-{self._port}.conf"
        super().__init__(self._conf.with_suffix(".log"))
        lines = [line.format(port=self.port) for line in conf]
        if not any(line.startswith("listener ") for line in lines):
            lines += [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        self._conf.write_text("\n".join([*lines, ""]))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    def command(self) -> Sequence[str | Path]:
        """Mosquitto with its configuration."""
        return [program("mosquitto"), "-c", self._conf]

    def ready(self) -> bool:
        """Whether it takes connections."""
        return answers(self.port)

    def spec(self, name: str) -> BrokerSpec:
        """The same for all."""
        del name
        return BrokerSpec(port=self.port)


class BridgedMosquittos(Broker):
    """Two Mosquittos: the nodes' own, which keeps a bridge to the one of the daemon and of people.

    `conf` are lines of the lower one's configuration, in which ``{upper}`` stands for the upper one's port.
    """

    def __init__(self, folder: Path, conf: Sequence[str]) -> None:
        self.upper = Mosquitto(folder)
        self.lower = Mosquitto(folder, [line.replace("{upper}", str(self.upper.port)) for line in conf])

    @property
    def port(self) -> int:
        """The upper one's."""
        return self.upper.port

    def start(self) -> None:
        """Start both."""
        self.upper.start()
        self.lower.start()

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End both."""
        self.lower.stop(signal_number)
        self.upper.stop(signal_number)

    def spec(self, name: str) -> BrokerSpec:
        """The nodes' (n1, n2 …) is the lower one, and all others' the upper one."""
        return (self.lower if re.fullmatch(r"n\d+", name) else self.upper).spec(name)


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

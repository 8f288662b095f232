"""What the programs tell the service manager that started them."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from polcad import service
from polcad.broker_spec import BrokerSpec
from polcad.config import SiteSpec
from polcad.daemon import Daemon
from polcad.spec import GuardSpec, NodeSpec, RowSpec
from polcad.testing_brokers import free_port
from policies.polca import Polca
from tests.waiting import eventually


def test_the_service_manager_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environ: Mapping[str, str] = {"NOTIFY_SOCKET": path}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        service.alive("2 GPUs", environ)
        assert manager.recv(4096) == b"READY=1\nWATCHDOG=1\nSTATUS=2 GPUs"
        for _ in range(2000):  # more than the socket takes
            service.alive("2 GPUs", environ)
    service.alive("nobody is there", environ)
    service.alive("nobody asked", {})


def test_an_abstract_address_is_known_by_its_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel picks an abstract name
        service.alive("x", {"NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode()})
        assert manager.recv(4096).endswith(b"STATUS=x")


def test_a_daemon_that_waits_for_its_broker_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    row = RowSpec("row", 1500.0, nodes=(NodeSpec("n1"),))
    daemon = Daemon(SiteSpec(), row, GuardSpec(), Polca(), BrokerSpec(port=free_port()))

    async def scenario(manager: socket.socket) -> None:
        running = asyncio.create_task(daemon.run())
        told: list[bytes] = []

        def heard() -> bool:
            with suppress(BlockingIOError):
                told.append(manager.recv(4096))
            return bool(told)

        await eventually(heard)
        assert told[0].endswith(b"STATUS=row row: the broker is not reached")
        running.cancel()
        await asyncio.wait({running})

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(path)
        asyncio.run(scenario(manager))

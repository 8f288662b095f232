"""A bare Debian, booted by its own systemd in a container on this machine's network. To be run by root."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import until

_STATE = ("var/cache", "var/log", "var/lib/apt", "var/lib/dpkg", "var/lib/systemd")  # what dpkg and systemd keep
_ELSEWHERE = ("proc", "sys", "dev", "run", "tmp")


class BootedDebian:
    """The Debian of this machine's release with Python and systemd, unpacked and booted in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "debian"
        self._log = folder / "boot.log"

    def __enter__(self) -> Self:
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        brought = "systemd,systemd-sysv,dbus,python3"
        command = ["debootstrap", "--variant=minbase", f"--include={brought}", release, str(self.root)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        with ExitStack() as undo:
            undo.callback(self.__exit__, None, None, None)
            self._boot()
            undo.pop_all()
        return self

    def _boot(self) -> None:
        nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only"]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                [*nspawn, f"--directory={self.root}", "--resolv-conf=copy-host"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._find_leader, 30.0)
        until(lambda: self.sh("systemctl is-system-running", check=False) in {"running", "degraded"}, 60.0)

    def _find_leader(self) -> bool:
        """Find the container's first process: nspawn's child that is systemd by now."""
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._leader = child
                    return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nspawn.terminate()
        try:
            self._nspawn.wait(30.0)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait(10.0)
        shutil.rmtree(self.root)  # half a gigabyte

    def sh(self, line: str, *, check: bool = True) -> str:
        """What a line of shell prints on this machine; AssertionError, with what it said, when it fails."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "--all", f"--target={self._leader}", "env", "-i", path, "DEBIAN_FRONTEND=noninteractive"]
        done = subprocess.run([*enter, "sh", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.sh(f"systemctl show --value --property={key} {unit}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of this machine, of root."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def files(self) -> set[str]:
        """Every file and folder, but for what the system itself keeps moving."""
        skipped = [option for name in (*_STATE, *_ELSEWHERE) for option in ("-path", f"./{name}", "-prune", "-o")]
        found = subprocess.run(
            ["find", ".", "-xdev", *skipped, "-print"], cwd=self.root, capture_output=True, text=True, check=True
        )
        return set(found.stdout.split("\n"))

"""The row that is broken: three nodes with agent and actuator, daemon, broker, recorder and database, all processes."""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polcad.signing import SigningSpec
from polcad.testing_brokers import Server
from tests.chaos.ear import Ear
from tests.chaos.place import Place
from tests.chaos.proxy import Proxy
from tests.databases import Influx
from tests.live_row import FREE_MHZ, LiveRow, Program
from tests.secured import Secured
from tests.waiting import until

BUDGET_W = 2000.0  # full load draws 2400 W, the fail-safe leaves 1682 W of it, two nodes in it and one free 1922 W
NODES = ("n1", "n2", "n3")
GUARD = {"lease_s": 1.0, "stale_after_s": 0.6, "dwell_s": 0.5, "brake_dwell_s": 0.5}
POLICY = (
    "[policy]\nt1_frac = 0.90\nt2_frac = 0.97\n"  # so high that a rise to full load is over the budget before any lock
)
CALM_LOAD = 0.5  # 1395 W
FRAME_S = 5.0  # what a killed recorder may lose, as `polcad.recording` says
_VERSIONS = Path(__file__).with_name("versions.py")


@dataclass
class ChaosRow(LiveRow):
    """A live row, as it would be installed. A part is named daemon, broker, recorder, database, n1 or actuator-n1."""

    budget_w: float = BUDGET_W
    influx: Influx | None = None
    links: Mapping[str, Proxy] = field(default_factory=dict)  # by part, its way to the broker, where that may be cut
    secured: Secured | None = None  # certificates and signed plans, where the broker asks for them
    place: Place = field(kw_only=True)  # where its programs run
    broken: set[str] = field(default_factory=set)  # parts that somebody here ended
    versions: dict[str, str] = field(default_factory=dict)  # by part, "older" or "newer" where it is not this version

    def security(self, name: str) -> str:
        """What a program's configuration says of certificates and signatures, as TOML."""
        identity = {"daemon": "daemon.row", "recorder": "reader.site"}.get(name, name)
        return "" if self.secured is None else self.secured.settings(identity)

    @property
    def pki(self) -> Path:
        """Where the certificates are."""
        return self.folder / "pki"

    def write_config(self, **guard: Any) -> None:
        """As every row's, with an actuator a node, a recorder and a database."""
        super().write_config(**{**GUARD, **guard})
        (self.folder / "bounds.toml").write_text("")
        for name in self.priorities:
            config = self.folder / f"{name}.toml"
            config.write_text(
                f'{config.read_text()}[actuator]\nsocket = "{self.folder}/{name}.sock"\nuser = "{getpass.getuser()}"\n'
                f'bounds = "{self.folder}/bounds.toml"\nstate_dir = "{self.folder}/actuator-{name}"\n'
            )
            (self.folder / f"actuator-{name}.toml").write_text(config.read_text())
        daemon = self.folder / "daemon.toml"
        as_reader = daemon.read_text().replace(self.security("daemon"), self.security("recorder"))
        (self.folder / "recorder.toml").write_text(as_reader)
        daemon.write_text(f"{daemon.read_text()}{self.place.policy or POLICY}")
        if self.influx is not None:
            sink = f'[influxdb]\nurl = "{self.influx.write_url}"\nflush_s = 0.2\ntimeout_s = 2.0\nretry_max_s = 1.0\n'
            daemon.write_text(f"{daemon.read_text()}{sink}")
        for part, link in self.links.items():
            config = self.folder / f"{part}.toml"
            config.write_text(config.read_text().replace(f"port = {self.broker.port}\n", f"port = {link.port}\n"))

        for part in self.programs_of_row():
            config = self.folder / f"{part}.toml"
            host = f'[broker]\nhost = "{self.place.host(part)}"\n'
            config.write_text(config.read_text().replace("[broker]\n", host, 1))

    def programs_of_row(self) -> tuple[str, ...]:
        """The names of all programs of polcad in it."""
        return ("daemon", "recorder", *self.priorities, *(f"actuator-{name}" for name in self.priorities))

    def program(self, name: str) -> Sequence[str]:
        """This version of `polcad`, or what speaks like another, where its place is."""
        version = self.versions.get(name, "")
        program = (sys.executable, str(_VERSIONS), version) if version else super().program(name)
        return (*self.place.before(name), *program)

    def start(self, command: str, name: str, env: Mapping[str, str], *options: str) -> Program:
        """Start a program with the configuration of that name, as its place is."""
        return super().start(command, name, {**env, **self.place.env(name)}, *options)

    def begin(self) -> None:
        """Start every part, and wait until the row is calm."""
        trust = SigningSpec(trusted_file=str(self.pki / "plan-row.pub")).trust() if self.secured else None
        self.ear = Ear(self.tap, trust.public_keys if trust else ())
        self.recording.parent.mkdir(exist_ok=True)
        for name in self.priorities:
            self.start_part(f"actuator-{name}")
        self.start_part("recorder")
        self.start_all()
        self.calm()

    @property
    def recording(self) -> Path:
        """What the recorder writes."""
        return self.folder / "recorded" / "row.rec"

    def start_part(self, part: str) -> None:
        """Start a part, or start it again."""
        kinds: dict[str, Callable[[], object]] = {
            "broker": self.broker.start,
            "database": self._influx.start if part == "database" else lambda: None,
            "daemon": self.daemon,
            "recorder": lambda: self.start("record", "recorder", {}, str(self.recording), "--append"),
        }
        if part in kinds:
            kinds[part]()
        elif part.startswith("actuator-"):
            self.start("actuator", part, self._nodes[part.removeprefix("actuator-")].env)
        else:
            self.agent(part)
        self.broken.discard(part)

    def kill(self, part: str) -> None:
        """End a part as a crash does."""
        self.broken.add(part)
        if part == "broker":
            self.broker.stop(signal.SIGKILL)
        elif part == "database":
            self._influx.engine.kill()
            self._influx.engine.wait(5.0)
        else:
            self.programs[part].kill()

    def freeze(self, part: str, number: signal.Signals = signal.SIGSTOP) -> None:
        """Let a part stand still, or (SIGCONT) go on."""
        if part == "broker":
            assert isinstance(self.broker, Server), "only a broker that is one process can stand still"
            (self.broker.pause if number is signal.SIGSTOP else self.broker.resume)()
        elif part == "database":
            self._influx.engine.send_signal(number)
        else:
            self.programs[part].process.send_signal(number)

    @property
    def _influx(self) -> Influx:
        assert self.influx is not None, "this row was made without a database"
        return self.influx

    def fallen(self) -> list[str]:
        """Programs that ended though nobody here ended them."""
        ended = {part: program.process.poll() for part, program in self.programs.items() if part not in self.broken}
        return [f"{part} ended with {code}" for part, code in ended.items() if code is not None]

    def calm(self) -> None:
        """Bring the row to a load that it may run free, and wait until it does."""
        self.load(CALM_LOAD)
        until(lambda: self.clocks() == {name: {FREE_MHZ} for name in self.priorities}, 20.0)
        until(self.well, 20.0)

    def well(self, since: float = 0.0) -> bool:
        """Whether every node has said since a time that it follows a plan from after it, and every board is as it says.

        The plan is the newest on the wire; what the boards are is read at the boards.
        """
        ear = self.ear.listen()
        if not ear.plans or ear.plans[-1].t < since:
            return False
        plan = ear.plans[-1].plan
        said = [ear.last.get(name) for name in self.priorities]
        held = all(
            each
            and each[0] > since
            and each[1].plan
            and each[1].plan.lease == "held"
            and each[1].plan.epoch == plan.epoch
            for each in said
        )
        return held and all(self._is_as_told(name) for name in self.priorities)

    def _is_as_told(self, name: str) -> bool:
        wanted = self.ear.plans[-1].setpoint(name, self.priorities[name])
        return all(abs(mhz - wanted.clock_frac * FREE_MHZ) < 15 for mhz in self.clocks()[name])

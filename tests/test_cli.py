"""Every command through the entry point that operators use, with its exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from polcad import actuator, agent, daemon, load
from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.cli import app, exit_code, look, main, operate
from polcad.cli.common import configured
from polcad.errors import ConfigError, DeviceError, OutrankedError, PermissionMissingError, UnavailableError
from polcad.model import Hint
from polcad.testing_brokers import Mosquitto, free_port
from polcad.wire import Address, Message, encode
from tests.fake_engine import Endpoint, Engine
from tests.live_row import FREE_MHZ, LOW_T1, POLCAD, LiveRow, Wiretap, boards_in
from tests.waiting import until

COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # a group
ALL = {
    "demo",
    "agent",
    "actuator",
    "daemon",
    "record",
    "import",
    "replay",
    "top",
    "status",
    "explain",
    "hold",
    "release",
}
ALL |= {"check", "doctor", "schema", "simulate", "plan", "reproduce", "backtest", "load", "hints", "site", "budgets"}
ALL |= {"pki", "broker-config"}

DMON = """#Date       Time        gpu    pwr  gtemp  mtemp     sm    mem    enc    dec    jpg    ofa   mclk   pclk
#YYYYMMDD   HH:MM:SS    Idx      W      C      C      %      %      %      %      %      %    MHz    MHz
 20260102   03:04:05      0    300     44      -     98     40      0      0      0      0   2619   1980
 20260102   03:04:06      0    690     44      -     98     40      0      0      0      0   2619   1980
 20260102   03:04:07      0    700     44      -     98     40      0      0      0      0   2619   1980
 20260102   03:04:08      0    310     44      -     98     40      0      0      0      0   2619   1980
"""


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def polcad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the entry point in this process."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["polcad", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Ran(int(code or 0), captured.out, captured.err)

    return run


def test_there_are_the_commands_that_the_readme_names() -> None:
    assert set(COMMANDS) == ALL


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_each_of_its_options_is_explained(polcad: Callable[..., Ran], command: str) -> None:
    ran = polcad(command, "--help")
    assert ran.code == 0
    assert "Usage: polcad" in ran.out
    group: Any = typer.main.get_command(app)
    assert all(option.help for option in group.commands[command].params)


def test_the_version_is_told(polcad: Callable[..., Ran]) -> None:
    assert polcad("--version").out.startswith("polcad 0.")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("demo", "--for", "1"),
        ("replay", "x"),
        ("schema", "nonsense"),
        ("hold", "h1"),
        ("hold", "BAD NAME", "--clock", "0.5"),
        ("hold", "h1", "--clock", "1.5"),
        ("hold", "h1", "--clock", "0.5", "--scope", "galaxy"),
        ("release", "BAD"),
    ],
)
def test_wrong_usage_is_exit_code_2(polcad: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = polcad(*words)
    assert ran.code == 2
    assert "Usage" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 78),
        (PermissionMissingError("x"), 77),
        (UnavailableError("x"), 69),
        (OutrankedError("x"), 76),
        (DeviceError("x"), 1),
    ],
)
def test_an_error_has_the_exit_code_of_who_must_act(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    "words",
    [("status",), ("explain",), ("hints",), ("top",), ("release", "h1"), ("hold", "h1", "--clock", "0.5")],
)
def test_without_a_broker_what_asks_it_is_exit_code_69(polcad: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = polcad(*words, "--broker", f"mqtt://127.0.0.1:{free_port()}")
    assert ran.code == 69
    assert ran.err.count("\n") == 1
    assert "refused" in ran.err


def test_a_replay_to_a_broker_that_is_not_there_is_exit_code_69(polcad: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(DMON)
    assert polcad("import", "--from", "dmon", tmp_path / "log", "--out", tmp_path / "rec").code == 0
    url = f"mqtt://127.0.0.1:{free_port()}"
    ran = polcad("replay", tmp_path / "rec", "--budget-w", "900", "--broker", url)
    assert ran.code == 69
    assert "refused" in ran.err


def test_a_broker_url_keeps_the_certificates_that_are_written_and_no_password(tmp_path: Path) -> None:
    path = tmp_path / "polcad.toml"
    path.write_text("[broker]\nuser = 'me'\npassword_file = '/pw'\n[broker.tls]\nca = '/ca.crt'\n")
    broker = configured([path], "mqtts://you@other").broker
    assert broker == BrokerSpec(host="other", port=8883, user="you", tls=TlsSpec(ca="/ca.crt"))
    assert configured([path], "mqtt://other").broker == BrokerSpec(host="other")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("hold", "Night Shift", "--clock", "0.5"), "1 to 64 of a-z"),
        (("release", "Night Shift"), "1 to 64 of a-z"),
        (("hold", "night", "--clock", "0.5", "--scope", "n1"), "node/NAME"),
        (("hold", "night"), "--clock or --limit"),
    ],
)
def test_an_order_that_means_nothing_is_exit_code_2_and_says_what_to_write(
    polcad: Callable[..., Ran], words: tuple[str, ...], remedy: str
) -> None:
    ran = polcad(*words)
    assert ran.code == 2
    assert remedy in ran.err


@pytest.mark.parametrize("command", ["agent", "daemon", "load", "status", "record x", "hold h1 --clock 0.5"])
def test_a_configuration_that_is_not_there_is_exit_code_78(polcad: Callable[..., Ran], command: str) -> None:
    ran = polcad(*command.split(), "-c", "/nowhere/polcad.toml")
    assert ran.code == 78
    assert "/nowhere/polcad.toml" in ran.err


def test_a_daemon_without_a_row_and_a_broker_url_with_a_password_are_exit_code_78(
    polcad: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "empty.toml").write_text("")
    assert polcad("daemon", "-c", tmp_path / "empty.toml").code == 78
    ran = polcad("status", "--broker", "mqtt://me:secret@127.0.0.1")
    assert ran.code == 78
    assert "secret" not in ran.err


BAD_FILES = {
    "[row]\nname = 'r'\nbudget_w = 9000\nbuget_w = 1": "row.buget_w",
    "[guard]\ntick_s = 'fast'": "guard.tick_s",
    "[row]\nname = 'r'\nbudget_w = 9000\n[policy]\nt1_frac = 0.9\nt2_frac = 0.8": "t2_frac",
    "[row]\nname = 'r'\nbudget_w = 100\n[[node]]\nname = 'n1'": "row.budget_w",
    "not toml": "polcad.toml:1",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_check_names_the_place_of_what_is_wrong_as_a_start_does(
    polcad: Callable[..., Ran], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "polcad.toml"
    path.write_text(text)
    checked, as_json, started = (
        polcad("check", "-c", path),
        polcad("check", "-c", path, "--json"),
        polcad("daemon", "-c", path),
    )
    assert (checked.code, as_json.code, started.code) == (78, 78, 78)
    for said in (checked.out, as_json.json["problems"][0], started.err):
        assert str(path) in said
        assert BAD_FILES[text] in said
    assert as_json.json["ok"] is False


def test_check_passes_a_good_file(polcad: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "polcad.toml").write_text("[site]\nname = 's'\n")
    assert polcad("check", "-c", tmp_path / "polcad.toml").code == 0
    assert polcad("check", "-c", tmp_path / "polcad.toml", "--json").json == {"ok": True, "problems": []}


def test_doctor_says_what_is_missing_and_what_to_do(polcad: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "polcad.toml").write_text(f"[broker]\nport = {free_port()}\n[agent]\ncollector = 'synthetic'\n")
    ran = polcad("doctor", "-c", tmp_path / "polcad.toml", "--json")
    checks = {check["name"]: check for check in ran.json["checks"]}
    assert ran.code == 69
    assert checks["broker"]["state"] == "fail"
    assert checks["broker"]["remedy"]
    assert checks["python"]["state"] == "ok"
    assert "fail  broker" in polcad("doctor", "-c", tmp_path / "polcad.toml").out


def test_schema_prints_the_contract_of_the_wire(polcad: Callable[..., Ran]) -> None:
    assert polcad("schema").json["asyncapi"].startswith("3.")
    plan = polcad("schema", "plan").json
    assert "lease_s" in json.dumps(plan)


def test_a_log_is_imported_and_replayed(polcad: Callable[..., Ran], tmp_path: Path) -> None:
    log, out = tmp_path / "dmon.txt", tmp_path / "out.rec"
    log.write_text(DMON)
    report = polcad("import", log, "--from", "dmon", "--out", out, "--gpu-max-w", "700", "--json")
    assert report.code == 0
    assert report.json["samples"] == 4
    ran = polcad("replay", out, "--budget-w", "750", "--json")
    assert ran.code == 0
    assert set(ran.json) >= {"samples", "gaps", "plans", "t1_entries", "t2_entries", "brakes", "peak_frac"}
    assert (ran.json["samples"], ran.json["t2_entries"]) == (4, 1)
    assert polcad("replay", out, "--budget-w", "750", "--json").out == ran.out
    assert polcad("replay", out, "--budget-w", "750", "--policy", "nonsense").code == 78


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("import /nowhere/log --from dmon --out {}/x", 1),
        ("import {}/polcad.toml --from nonsense --out {}/x", 78),
        ("replay /nowhere/rec --budget-w 100", 1),
        ("record /nowhere/rec --for 1", 1),
    ],
)
def test_a_file_that_cannot_be_used_is_named(polcad: Callable[..., Ran], tmp_path: Path, words: str, code: int) -> None:
    (tmp_path / "polcad.toml").write_text("")
    ran = polcad(*words.format(tmp_path, tmp_path).split())
    assert ran.code == code
    assert "nowhere" in ran.err or "nonsense" in ran.err


# --- against a live row -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(fake_nvml_lib: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRow]:
    folder = tmp_path_factory.mktemp("live")
    with Mosquitto(folder) as broker, LiveRow(folder, broker, boards_in(folder, fake_nvml_lib)) as row:
        row.start_all()
        yield row


def run(live: LiveRow, *words: object) -> Ran:
    """A command of its own process, with the daemon's configuration."""
    command = [POLCAD, *map(str, words), "-c", str(live.folder / "daemon.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
    return Ran(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.integration
def test_status_and_explain_tell_of_a_live_row(live: LiveRow) -> None:
    told, as_json = run(live, "status"), run(live, "status", "--json")
    assert (told.code, as_json.code) == (0, 0)
    assert "row" in told.out
    assert (as_json.json["row"], as_json.json["nodes"], as_json.json["online"]) == ("row", 3, True)
    assert as_json.json["age_s"] < 5.0
    explained = run(live, "explain")
    assert explained.code == 0
    assert len(explained.out.splitlines()) >= 1


@pytest.mark.integration
def test_a_row_without_a_daemon_is_exit_code_69(
    live: LiveRow, polcad: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_ANSWER_S", 0.3)
    ran = polcad("status", "--broker", f"mqtt://127.0.0.1:{live.broker.port}", "--site", "site", "--row", "other")
    assert ran.code == 69
    assert "no daemon has spoken" in ran.err


@pytest.mark.integration
def test_hints_are_told_with_what_they_save_and_when_they_end(tmp_path: Path, polcad: Callable[..., Ran]) -> None:
    now = time.time()
    hint = Hint(
        "sm", "row", now - 60, now + 600, 3, 4, 0.8, 2220.0, 5.0, 4000.0, 9000.0, saves_w=1500.0, why="new epoch"
    )
    others = (replace(hint, pool="ll", saves_w=None), replace(hint, pool="ss", expires_t=now - 1, saves_w=700.0))
    with Mosquitto(tmp_path) as broker, Wiretap(broker.port) as tap:
        asked = ("hints", "--broker", f"mqtt://127.0.0.1:{broker.port}")
        assert "No hints" in polcad(*asked).out
        for each in (hint, *others):
            tap.send(encode(Address("site", "", "hint", pool=each.pool), each))
        tap.send(Message("polcad/v1/site/hint/mm", b"garbage", 1, retain=True))
        tap.send(encode(Address("elsewhere", "", "hint", pool="far"), replace(hint, pool="far")))
        told, as_json = polcad(*asked), polcad(*asked, "--json").json
    assert "save 1.50 kW under the load now; of 1 it is not known" in told.out
    assert [one["pool"] for one in as_json["hints"]] == ["ll", "sm", "ss"]
    sm = as_json["hints"][1]
    assert (sm["instances"], sm["tensor_parallel"], sm["why"], as_json["saves_w"]) == (3, 4, "new epoch", 1500.0)
    assert 60.0 <= sm["age_s"] < 90.0
    assert 570.0 < sm["expires_in_s"] <= 600.0
    assert as_json["hints"][2]["expires_in_s"] < 0.0


@pytest.mark.integration
def test_load_tells_what_an_engine_does_and_that_it_left(tmp_path: Path) -> None:
    engine = Engine()
    with Endpoint(engine.text) as endpoint, Mosquitto(tmp_path) as broker, Wiretap(broker.port) as tap:
        settings = {"POOL": "sm", "INSTANCE": "sm-0", "URL": endpoint.url, "PERIOD_S": "0.2", "TENSOR_PARALLEL": "4"}
        env = {**os.environ, **{f"POLCAD_LOAD__{name}": value for name, value in settings.items()}}
        command = [POLCAD, "load", "--broker", f"mqtt://127.0.0.1:{broker.port}"]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
            until(lambda: bool(tap.nouns("load")))
            engine.serve(100, 10)
            until(lambda: any(load.prompt_tokens_per_s for load in tap.nouns("load")))
            process.send_signal(signal.SIGTERM)
            assert process.wait(10.0) == 0
            until(lambda: tap.nouns("load")[-1].ended)
    told = tap.nouns("load")
    assert {(load.pool, load.instance, load.tensor_parallel) for load in told} == {("sm", "sm-0", 4)}
    assert not any(received.message.retain for received in tap.heard)


@pytest.mark.integration
def test_hold_locks_the_boards_and_release_frees_them(live: LiveRow) -> None:
    assert run(live, "hold", "night", "--clock", "0.8", "--scope", "node/n2", "--minutes", "1").code == 0
    until(lambda: live.clocks() == {"n1": {FREE_MHZ}, "n2": {1125}, "n3": {FREE_MHZ}})
    assert "All GPUs of node n2: clock ≤ 80 %, because an operator's hold." in run(live, "explain").out
    assert run(live, "release", "night").code == 0
    live.until_clocks(FREE_MHZ, FREE_MHZ)
    again = run(live, "release", "night")
    assert again.code == 2
    assert "has no hold 'night'" in again.err


@pytest.mark.integration
def test_an_order_that_the_broker_drops_is_exit_code_69_and_not_told_as_given(
    polcad: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(operate, "_ECHO_S", 0.3)
    (tmp_path / "acl").write_text("topic read #\n")
    conf = ["listener {port} 127.0.0.1", "allow_anonymous true", f"acl_file {tmp_path / 'acl'}"]
    conf += ["user root"] if os.geteuid() == 0 else []  # or it could not read the list
    with Mosquitto(tmp_path, conf) as broker:
        ran = polcad("hold", "night", "--clock", "0.5", "--broker", f"mqtt://127.0.0.1:{broker.port}")
    assert (ran.code, ran.out) == (69, "")
    assert "access list" in ran.err


@pytest.mark.integration
def test_top_draws_the_row_until_it_is_interrupted(live: LiveRow) -> None:
    terminal, inner = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    command = [POLCAD, "top", "-c", str(live.folder / "daemon.toml")]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env) as process:
        os.close(inner)
        drawn = b""
        deadline_s = time.monotonic() + 10.0
        while b"share of maximum power" not in drawn and time.monotonic() < deadline_s:
            drawn += os.read(terminal, 65536)
        process.send_signal(signal.SIGINT)
        until(lambda: _drained(terminal) and process.poll() is not None)
        assert process.returncode == 0
    os.close(terminal)
    assert b"policy polca" in drawn
    assert b"share of maximum power" in drawn


def _drained(terminal: int) -> bool:
    os.set_blocking(terminal, False)
    try:
        os.read(terminal, 65536)
    except OSError:  # nothing now, or the other end is closed
        return True
    return True


@pytest.mark.integration
def test_what_was_recorded_replays_offline_and_as_live_nodes(live: LiveRow, tmp_path: Path) -> None:
    out = tmp_path / "row.rec"
    ran = run(live, "record", out, "--for", "1.5", "--json")
    assert ran.code == 0
    assert ran.json["messages"] > 20
    replayed = run(live, "replay", out, "--budget-w", "2360", "--json")
    assert replayed.code == 0
    assert replayed.json["samples"] > 20
    with Mosquitto(tmp_path) as broker, Wiretap(broker.port) as tap:
        assert run(live, "replay", out, "--budget-w", "2360", "--broker", f"mqtt://127.0.0.1:{broker.port}").code == 0
        said = tap.nouns("telemetry")
    assert {one.node for one in said} == {"n1", "n2", "n3"}
    assert {outcome for one in said if one.in_force for outcome in one.in_force.outcome} == {"unmanaged"}


@pytest.mark.integration
def test_sighup_takes_a_good_file_and_keeps_the_old_one_over_a_bad(live: LiveRow) -> None:
    daemon, agent = live.programs["daemon"], live.programs["n2"]
    before = live.tap.status()
    assert before is not None
    good = (live.folder / "daemon.toml").read_text()

    (live.folder / "daemon.toml").write_text(good + "[nonsense]\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "the configuration stays as it was" in daemon.log.read_text())
    seen = len(live.tap.nouns("daemon"))
    until(lambda: len(live.tap.nouns("daemon")) > seen + 3)
    assert {status.epoch for status in live.tap.nouns("daemon") if status.online} == {before.epoch}

    (live.folder / "daemon.toml").write_text(good.replace("budget_w = 2360.0", "budget_w = 2000.0"))
    daemon.process.send_signal(signal.SIGHUP)
    live.until_status(lambda status: bool(status.domains) and status.domains[0].budget_w == 2000.0)
    assert daemon.process.poll() is None

    path = live.folder / "n2.toml"
    path.write_text(path.read_text().replace("period_s = 0.1", "period_s = 0.2"))
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: (said := live.tap.telemetry("n2")) is not None and said.period_s == 0.2)
    live.until_followed()


@pytest.mark.parametrize("program", [agent, actuator, daemon, load], ids=lambda program: program.__name__)
def test_a_reload_is_refused_where_a_file_that_the_program_needs_cannot_be_used(
    program: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "row.toml").write_text(
        f"""
broker.password_file = "{tmp_path}/none"
actuator = {{socket = "{tmp_path}/a.sock", user = "root", bounds = "{tmp_path}/none"}}
row = {{name = "row", budget_w = 1000.0}}
"""
    )
    with pytest.raises(ConfigError, match=f"{tmp_path}/none.* cannot be read"):
        program.usable(configured([tmp_path / "row.toml"]))


@pytest.mark.integration
def test_sigterm_ends_agent_and_daemon_in_order_and_the_broker_knows_them_gone(live: LiveRow) -> None:
    live.load(0.65)  # T1 of the smaller budget
    live.until_clocks(FREE_MHZ, LOW_T1)
    assert live.programs["n3"].stop() == 0
    assert live.programs["daemon"].stop() == 0
    with Wiretap(live.broker.port) as late:
        until(lambda: late.status() is not None)
        until(lambda: len(late.nouns("state")) == 3)
        status = late.status()
        online = {state.node: state.online for state in late.nouns("state")}
    assert status is not None
    assert status.online is False
    assert online == {"n1": True, "n2": True, "n3": False}
    ran = run(live, "status")
    assert ran.code == 1


@pytest.mark.integration
def test_a_stopped_agent_gives_its_boards_back_on_request(live: LiveRow) -> None:
    """After the daemon has ended: the boards are at the fail-safe, and stay there without an agent."""
    agent = live.programs["n2"]
    for options in (("--release",), ()):  # while the agent runs, nobody else sets its GPUs
        early = live.start("agent", "n2", live.boards["n2"].env, *options)
        assert early.process.wait(10.0) == 69
    assert early.log.read_text().count("another agent or actuator sets these GPUs") == 2
    agent.stop()
    assert FREE_MHZ not in live.clocks()["n2"]
    assert live.start("agent", "n2", live.boards["n2"].env, "--release").process.wait(10.0) == 0
    assert live.clocks()["n2"] == {FREE_MHZ}


@pytest.mark.integration
def test_the_demo_ends_by_itself_and_prints_what_it_did() -> None:
    command = [POLCAD, "demo", "--for", "8", "--json", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=40.0, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert set(told) >= {"nodes", "gpus", "telemetry", "plans", "t1_entries", "t2_entries", "brakes", "peak_frac"}
    assert set(told) >= {"seconds_over_budget", "reaction_p99_s"}
    assert (told["nodes"], told["gpus"], told["brakes"]) == (12, 96, 0)
    assert told["t1_entries"] >= 1
    assert told["t2_entries"] >= 1
    assert told["seconds_over_budget"] == 0.0

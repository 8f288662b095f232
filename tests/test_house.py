import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("dirname", "cksum", "cat", "printf")  # what the scripts use before they look for anything


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without .venv, on a machine that has hardly any program: add those in `bin`."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    program(tmp_path, "id", "echo 1000")
    return tmp_path


def program(checkout: Path, name: str, script: str) -> None:
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(checkout: Path, script: str) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/sh", f"scripts/{script}"],
        cwd=checkout,
        env={"PATH": str(checkout / "bin")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr


def test_setup_without_a_python_says_what_to_install(bare: Path) -> None:
    program(bare, "python3", "exit 1")  # as one that is older than 3.11
    code, told = run(bare, "setup")

    assert code == 1
    assert "no Python 3.11 or later here; as root, run: apt-get install python3" in told


def test_setup_without_ensurepip_and_without_root_says_the_line_to_run(bare: Path) -> None:
    program(bare, "python3", 'case "$2" in *ensurepip*) exit 1 ;; *print*) echo python3.12-venv ;; esac')
    program(bare, "apt-get", "exit 100")
    code, told = run(bare, "setup")

    assert code == 1
    assert "as root, run: apt-get update && apt-get install -y --no-install-recommends python3.12-venv\n" in told


def test_packages_without_root_says_the_line_to_run(bare: Path) -> None:
    text = (bare / "scripts" / "packages").read_text()
    (bare / "scripts" / "packages").write_text(text.replace("mosquitto ", "polcad-no-such-program "))
    program(bare, "apt-get", "exit 100")
    code, told = run(bare, "packages")

    assert code == 1
    assert re.search(r"as root, run: apt-get update && apt-get install -y --no-install-recommends .*mosquitto", told)


def test_every_locked_package_is_pinned_with_hashes_and_no_registry_is_named() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z])", lock.strip())

    assert "://" not in lock
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    asked = [*project["project"]["dependencies"], *groups["build"], *groups["test"], *groups["check"]]
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE))

    names = {re.split(r"[^\w.-]", line)[0].lower().replace(".", "-") for line in asked}
    assert names <= {name.replace(".", "-") for name in locked}


def test_the_readme_is_short_and_its_commands_are_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert len(readme.splitlines()) <= 150
    assert set(re.findall(r"\bmake ([a-z]+)", readme)) <= targets

"""Print the part of requirements.lock, hashes and all, that pip's report on standard input asks for."""

import json
import re
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    entries = re.split(r"\n(?=[a-z])", LOCK.read_text(encoding="utf-8").strip())
    locked = {(normal(entry.split("==")[0]), re.split(r"==|[ ;\\]", entry)[1]): entry for entry in entries}
    found = [item["metadata"] for item in json.load(sys.stdin)["install"]]
    for package in found:
        if normal(package["name"]) != "polcad":
            print(locked[normal(package["name"]), package["version"]])

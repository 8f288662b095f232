"""One target under atheris: `python -m tests.fuzz.child TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import logging
import sys
import warnings

import atheris

FOLLOWED = ["polcad", "collectors", "policies", "tomllib", "prometheus_client"]  # whose branches lead the search


def main() -> None:
    """Run until time is up (0), or something is found; libFuzzer ends the process."""
    with atheris.instrument_imports(include=FOLLOWED):
        from tests.fuzz.table import TARGETS  # noqa: PLC0415  # what is imported here is instrumented

    target = TARGETS[sys.argv.pop(1)]
    logging.disable()
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""The command line: every command is a few lines around a program of the product.

Exit codes: 0 well, 1 failed, 2 wrong usage, 69 no GPU driver or broker, 75 a newer daemon has the row and this one,
started again, is its standby, 76 a newer daemon has the row, 77 no permission, 78 configuration. A service manager
should not start again what ended with 2, 76, 77 or 78.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from typing import Annotated, NoReturn

import typer

from polcad.cli import backtest, data, look, operate, plan, programs, security, simulate
from polcad.errors import (
    ConfigError,
    OutrankedError,
    PermissionMissingError,
    PolcadError,
    StandDownError,
    UnavailableError,
)

app = typer.Typer(
    name="polcad",
    help="Keeps rows of GPU servers under their power budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for group in (programs, look, operate, data, simulate, plan, backtest, security):
    group.add_to(app)

_EXIT_CODES: tuple[tuple[type[PolcadError], int], ...] = (
    (ConfigError, 78),
    (PermissionMissingError, 77),
    (UnavailableError, 69),
    (StandDownError, 75),
    (OutrankedError, 76),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polcad {version_of('polcad')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # acts by its callback
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line; an error is one clear message and its exit code."""
    try:
        app(prog_name="polcad")
    except PolcadError as error:
        _fail(error)
    except ExceptionGroup as group:
        ours, others = group.split(PolcadError)
        if ours is None or others is not None:
            raise
        _fail(_first(ours))


def _fail(error: BaseException) -> NoReturn:
    typer.secho(f"polcad: {error}", err=True, fg="red")
    sys.exit(exit_code(error))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException) -> int:
    """The exit code of an error of ours."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)

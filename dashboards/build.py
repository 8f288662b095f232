"""All dashboards, as the files that Grafana takes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dashboards import fleet, hints, loop, node, row
from dashboards.fields import Json
from dashboards.grafana import Database, render

BOARDS = (fleet.dashboard, row.dashboard, node.dashboard, loop.dashboard, hints.dashboard)


def files() -> Mapping[str, str]:
    """By path under dashboards/, what is to stand there."""
    boards = [(database, make()) for database in Database for make in BOARDS]
    return {f"{database}/polcad-{board.name}.json": _text(render(board, database)) for database, board in boards}


def _text(dashboard: Json) -> str:
    return json.dumps(dashboard, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

"""Write the files of docs/ and dashboards/ that are made from the code; tests compare them."""

from importlib.metadata import version
from pathlib import Path

from dashboards.build import files
from polcad.access import Inventory
from polcad.broker_config import ACL, CONF, mosquitto_acl, mosquitto_conf
from polcad.config import load
from polcad.config.example import example
from polcad.metrics_text import page
from polcad.nats_config import CONF as NATS_CONF
from polcad.nats_config import USERS, nats_files
from polcad.schema import render

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARDS = DOCS.parent / "dashboards"

if __name__ == "__main__":
    (DOCS / "polcad.example.toml").write_text(example(), encoding="utf-8")
    (DOCS / "asyncapi.json").write_text(render(version("polcad")), encoding="utf-8")
    config = load([DOCS / "polcad.example.toml"], {})
    rows = [Inventory(config.site.name, config.the_row()[0])]
    (DOCS / "broker" / ACL).write_text(mosquitto_acl(rows), encoding="utf-8")
    (DOCS / "broker" / CONF).write_text(mosquitto_conf(), encoding="utf-8")
    hosts = [f"nats{number}.example" for number in (1, 2, 3)]
    of_nats = nats_files(rows, hosts)
    (DOCS / "broker" / USERS).write_text(of_nats[USERS], encoding="utf-8")
    (DOCS / "broker" / NATS_CONF).write_text(of_nats[f"{hosts[0]}.conf"], encoding="utf-8")
    for path, text in files().items():
        (DASHBOARDS / path).parent.mkdir(exist_ok=True)
        (DASHBOARDS / path).write_text(text, encoding="utf-8")
    (DOCS / "metrics.md").write_text(page(), encoding="utf-8")

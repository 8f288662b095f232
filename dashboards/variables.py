"""The choices at the top of the dashboards."""

from __future__ import annotations

from dataclasses import replace

from dashboards.grafana import Variable

_SITE = '"site" =~ /^${site:regex}$/'
_ROW = f'{_SITE} AND "row" =~ /^${{row:regex}}$/'

SITE = Variable(
    "site",
    "Site",
    "Choose one where rows of several have the same name. Prometheus knows it as a label that its scrape adds.",
    influxql='SHOW TAG VALUES FROM "polcad_loop" WITH KEY = "site"',
    promql="label_values(polcad_nodes, site)",
    several=True,
)
ROW = Variable(
    "row",
    "Row",
    "A row of the chosen sites.",
    influxql=f'SHOW TAG VALUES FROM "polcad_loop" WITH KEY = "row" WHERE {_SITE}',
    promql='label_values(polcad_nodes{site=~"$site"}, row)',
)
ROWS = replace(ROW, several=True, help="Rows of the chosen sites.")
SCOPE = Variable(
    "scope",
    "Domain",
    "The row itself, or a rack that has a budget of its own.",
    influxql=f'SHOW TAG VALUES FROM "polcad_domain" WITH KEY = "scope" WHERE {_ROW}',
    promql='label_values(polcad_domain_power_watts{site=~"$site", row="$row"}, scope)',
    start="row",
)
RACK = Variable(
    "rack",
    "Rack",
    "Racks of the row.",
    influxql=f'SHOW TAG VALUES FROM "polcad_node" WITH KEY = "rack" WHERE {_ROW}',
    promql='label_values(polcad_node_stale{site=~"$site", row="$row"}, rack)',
    several=True,
)
NODE = Variable(
    "node",
    "Node",
    "A node of the chosen racks.",
    influxql=f'SHOW TAG VALUES FROM "polcad_node" WITH KEY = "node" WHERE {_ROW} AND "rack" =~ /^${{rack:regex}}$/',
    promql='label_values(polcad_node_stale{site=~"$site", row="$row", rack=~"$rack"}, node)',
)
GPU = Variable(
    "gpu",
    "GPU",
    "GPUs of the node, by index.",
    influxql=(f'SHOW TAG VALUES FROM "polcad_gpu" WITH KEY = "gpu" WHERE {_ROW} AND "node" =~ /^${{node:regex}}$/'),
    promql='label_values(polcad_gpu_power_watts{site=~"$site", row="$row", node="$node"}, gpu)',
    several=True,
)
POOL = Variable(
    "pool",
    "Pool",
    "Pools of serving instances.",
    influxql=f'SHOW TAG VALUES FROM "polcad_hint" WITH KEY = "pool" WHERE {_ROW}',
    promql='label_values(polcad_hint_instances{site=~"$site", row="$row"}, pool)',
    several=True,
)
MODE = Variable(
    "mode",
    "Daemon",
    "live: whose plans the nodes follow. shadow: whose plans nobody follows.",
    choices={"live": "0", "shadow": "1"},
)
DAEMONS = Variable(  # a shadow's figures must not mix with those of the row's own daemon, nor vanish with the daemon
    "daemon",
    "Instance",
    "The addresses at which Prometheus finds the daemons of the chosen kind.",
    promql='query_result(last_over_time(polcad_shadow{site=~"$site"}[$__range]) == $mode)',
    regex='/instance="([^"]+)"/',
    several=True,
    hidden=True,
)

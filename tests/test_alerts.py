"""The alarms: every one fires on what it is about and is silent in a row that is well, by promtool's own word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from polcad.web.families import FAMILIES

RULES = Path(__file__).parent.parent / "dashboards" / "alerts" / "polcad.rules.yml"
TEXT = RULES.read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", TEXT)
MINUTES = {"PolcadForecastDoubted": 370, "PolcadVersionsDiffer": 1450}  # of history that an alarm needs, if not:
USUAL_MINUTES = 70

ROW = 'row="row1", job="polcad", instance="d:8642"'
SCOPE = f'{ROW}, scope="row"'
NODE = 'row="row1", rack="r1", node="n1", job="polcad", instance="d:8642"'
GPU = f'{NODE}, gpu="0", uuid="GPU-a"'
LOW, HIGH = f'{ROW}, priority="low", role="mixed"', f'{ROW}, priority="high", role="mixed"'
STEADY = f"x{max(MINUTES.values())}"  # how often the step before it is taken

# What a row that is well tells, each minute.
WELL = {
    'up{job="polcad", instance="d:8642"}': f"1+0{STEADY}",
    f'polcad_events_total{{{ROW}, kind="brake"}}': f"3+0{STEADY}",
    f"polcad_domain_power_min_watts{{{SCOPE}}}": f"7000+0{STEADY}",
    f"polcad_domain_budget_watts{{{SCOPE}}}": f"9000+0{STEADY}",
    f'polcad_domain_cause_seconds_total{{{SCOPE}, why="t2"}}': f"0+10{STEADY}",
    f"polcad_class_victims{{{LOW}}}": f"80+0{STEADY}",
    f"polcad_class_victims{{{HIGH}}}": f"0+0{STEADY}",
    f"polcad_class_gpus{{{LOW}}}": f"80+0{STEADY}",
    f"polcad_class_gpus{{{HIGH}}}": f"80+0{STEADY}",
    f"polcad_class_obeying_gpus{{{LOW}}}": f"80+0{STEADY}",
    f"polcad_class_obeying_gpus{{{HIGH}}}": f"80+0{STEADY}",
    f"polcad_node_stale{{{NODE}}}": f"0+0{STEADY}",
    f"polcad_node_fault{{{NODE}}}": f"0+0{STEADY}",
    f"polcad_nodes{{{ROW}}}": f"40+0{STEADY}",
    f"polcad_nodes_stale{{{ROW}}}": f"1+0{STEADY}",
    f'polcad_agent_lease{{{NODE}, state="held"}}': f"1+0{STEADY}",
    f'polcad_agent_lease{{{NODE}, state="expired"}}': f"0+0{STEADY}",
    f'polcad_gpu_setpoint{{{GPU}, outcome="clamped"}}': f"1+0{STEADY}",
    f"polcad_gpu_fault{{{GPU}}}": f"0+0{STEADY}",
    f'polcad_gpu_throttled{{{GPU}, reason="sw_power_cap"}}': f"1+0{STEADY}",
    f'polcad_gpu_throttled{{{GPU}, reason="hw_thermal"}}': f"0+0{STEADY}",
    f"polcad_tick_timestamp_seconds{{{ROW}}}": f"0+60{STEADY}",
    'polcad_ready{job="polcad", instance="d:8642"}': f"1+0{STEADY}",
    f"polcad_reaction_p99_seconds{{{ROW}}}": f"1.5+0{STEADY}",
    f"polcad_domain_forecast_horizon_seconds{{{SCOPE}}}": f"2+0{STEADY}",
    f"polcad_domain_forecast_doubted{{{SCOPE}}}": f"0+0{STEADY}",
    f"polcad_tick_lag_max_seconds{{{ROW}}}": f"0.01+0{STEADY}",
    **{
        f"polcad_{name}_total{{{ROW}}}": f"7+0{STEADY}"
        for name in (
            *("dropped_in_messages", "dropped_out_messages", "oversized_messages", "refused_messages"),
            *("absurd_epochs", "duplicate_names", "stray_nodes"),
        )
    },
    f'polcad_hint_expires_timestamp_seconds{{{ROW}, pool="sm"}}': f"900+60{STEADY}",
    f'polcad_sink_dropped_points_total{{{ROW}, sink="influxdb"}}': f"5+0{STEADY}",
    f'polcad_sink_refused_points_total{{{ROW}, sink="influxdb"}}': f"5+0{STEADY}",
    f'polcad_sink_waiting_points{{{ROW}, sink="influxdb"}}': f"400+0{STEADY}",
    'polcad_window_seconds{job="polcad", instance="d:8642"}': f"60+0{STEADY}",
    'polcad_build_info{version="1.0", job="polcad", instance="d:8642"}': f"1+0{STEADY}",
}
# What each alarm is about, in the place of the same series above or beside them.
ILL: dict[str, dict[str, str]] = {
    "PolcadBraked": {f'polcad_events_total{{{ROW}, kind="brake"}}': f"0+1{STEADY}"},
    "PolcadOverBudget": {f"polcad_domain_power_min_watts{{{SCOPE}}}": f"9100+0{STEADY}"},
    "PolcadShortOfPower": {f'polcad_domain_cause_seconds_total{{{SCOPE}, why="t2"}}': f"0+40{STEADY}"},
    "PolcadHighPrioritySlowed": {f"polcad_class_victims{{{HIGH}}}": f"80+0{STEADY}"},
    "PolcadNodeSilent": {f"polcad_node_stale{{{NODE}}}": f"1+0{STEADY}"},
    "PolcadManyNodesSilent": {f"polcad_nodes_stale{{{ROW}}}": f"5+0{STEADY}"},
    "PolcadNodeFault": {f"polcad_node_fault{{{NODE}}}": f"1+0{STEADY}"},
    "PolcadNotObeyed": {f"polcad_class_obeying_gpus{{{LOW}}}": f"70+0{STEADY}"},
    "PolcadLeaseExpired": {f'polcad_agent_lease{{{NODE}, state="expired"}}': f"1+0{STEADY}"},
    "PolcadGpuNotSet": {f'polcad_gpu_setpoint{{{GPU}, outcome="denied"}}': f"1+0{STEADY}"},
    "PolcadGpuFault": {f"polcad_gpu_fault{{{GPU}}}": f"1+0{STEADY}"},
    "PolcadGpuHeldBack": {f'polcad_gpu_throttled{{{GPU}, reason="hw_thermal"}}': f"1+0{STEADY}"},
    "PolcadDown": {'up{job="polcad", instance="d:8642"}': f"0+0{STEADY}"},
    "PolcadNotTicking": {f"polcad_tick_timestamp_seconds{{{ROW}}}": f"0+0{STEADY}"},
    "PolcadNotReady": {'polcad_ready{job="polcad", instance="d:8642"}': f"0+0{STEADY}"},
    "PolcadReactsTooLate": {f"polcad_reaction_p99_seconds{{{ROW}}}": f"2.5+0{STEADY}"},
    "PolcadLoopLate": {f"polcad_tick_lag_max_seconds{{{ROW}}}": f"0.8+0{STEADY}"},
    "PolcadMessagesLost": {f"polcad_dropped_in_messages_total{{{ROW}}}": f"0+2{STEADY}"},
    "PolcadMessagesRefused": {f"polcad_refused_messages_total{{{ROW}}}": f"0+2{STEADY}"},
    "PolcadImpostor": {f"polcad_stray_nodes_total{{{ROW}}}": f"0+1{STEADY}"},
    "PolcadForecastDoubted": {f"polcad_domain_forecast_doubted{{{SCOPE}}}": f"1+0{STEADY}"},
    "PolcadHintEnds": {f'polcad_hint_expires_timestamp_seconds{{{ROW}, pool="sm"}}': f"200+60{STEADY}"},
    "PolcadPointsLost": {f'polcad_sink_refused_points_total{{{ROW}, sink="influxdb"}}': f"0+9{STEADY}"},
    "PolcadSinkBehind": {f'polcad_sink_waiting_points{{{ROW}, sink="influxdb"}}': f"200000+0{STEADY}"},
    "PolcadScrapedTooSeldom": {'polcad_window_seconds{job="polcad", instance="d:8642"}': f"30+0{STEADY}"},
    "PolcadVersionsDiffer": {'polcad_build_info{version="0.9", job="polcad", instance="n1:8643"}': f"1+0{STEADY}"},
}


def promtool(*arguments: str) -> str:
    path = shutil.which("promtool", path="/usr/bin:/usr/local/bin:/bin")
    if path is None:
        raise RuntimeError("promtool is not installed: make packages")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def group(series: dict[str, str], alert: str) -> dict[str, Any]:
    """A history, and which of the alarms alone fires at its end; "" for none."""
    firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    return {
        "name": alert or "well",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'max by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES.get(alert, USUAL_MINUTES)}m",
                "exp_samples": firing,
            }
        ],
    }


def test_every_alarm_has_a_case_tells_what_to_do_and_asks_for_metrics_there_are() -> None:
    assert sorted(ALERTS) == sorted(ILL)
    for rule in TEXT.split("- alert: ")[1:]:
        assert all(f"{part}:" in rule for part in ("expr", "severity", "summary", "description")), rule
    named = set(re.findall(r"\bpolcad_\w+", TEXT))
    assert named <= set(FAMILIES)


@pytest.mark.integration
def test_promtool_finds_the_rules_in_order() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.integration
def test_each_alarm_fires_alone_on_what_it_is_about_and_none_in_a_row_that_is_well(tmp_path: Path) -> None:
    cases = [group(WELL, ""), *(group(WELL | series, alert) for alert, series in ILL.items())]
    spec = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "alerts.yml").write_text(json.dumps(spec))  # JSON is YAML
    promtool("test", "rules", str(tmp_path / "alerts.yml"))

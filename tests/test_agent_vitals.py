"""What an agent shows machines: its GPUs, its lease, and whether it is well."""

from __future__ import annotations

from dataclasses import replace

from polcad.agent_facts import AgentFacts
from polcad.agent_vitals import AgentVitals
from polcad.config import AgentSpec
from polcad.model import Gpus
from polcad.web.families import FAMILIES
from tests.scrapes import samples
from tests.test_points import SAID

SPEC = AgentSpec(row="row1", rack="r1", node="n1")
FACTS = AgentFacts(SAID, 0.5, True, "", 3, 2, 1, 4.0, 1.0)
NODE = (("node", "n1"), ("rack", "r1"), ("row", "row1"))
GPU = (("gpu", "0"), ("node", "n1"), ("rack", "r1"), ("row", "row1"), ("uuid", "GPU-a"))


def test_everything_told_stands_in_the_table_in_base_units() -> None:
    vitals = AgentVitals(SPEC, 60.0, lambda: FACTS)
    vitals.told(replace(SAID, t=SAID.t - 1.0, reading=replace(SAID.reading, gpus=powers(390.0, 100.0))), 0.02)
    vitals.told(SAID, 0.01)
    found = samples(vitals.scene().laid_out().text())
    for name, labels in found:
        assert set(dict(labels)) == set(FAMILIES[name].labels), name
    assert found["polcad_gpu_sm_clock_hertz", GPU] == 1110e6
    assert found["polcad_gpu_energy_joules_total", GPU] == 5e6
    assert [found[f"polcad_gpu_power_{span}_watts", GPU] for span in ("min", "mean", "max")] == [300.0, 345.0, 390.0]
    throttled = {
        dict(labels)["reason"] for (name, labels), on in found.items() if name == "polcad_gpu_throttled" and on
    }
    assert throttled == {"sw_power_cap", "hw_thermal"}
    assert found["polcad_gpu_setpoint", tuple(sorted((*GPU, ("outcome", "overridden"))))] == 1.0
    assert found["polcad_agent_lease", tuple(sorted((*NODE, ("state", "held"))))] == 1.0
    assert found["polcad_agent_cycle_max_seconds", NODE] == 0.02
    assert found["polcad_agent_lease_left_seconds", NODE] == 4.0


def powers(*power_w: float) -> Gpus:
    return Gpus(uuid=("GPU-a", "GPU-b"), power_w=power_w, max_w=(400.0, 400.0))


def test_an_agent_is_ready_when_the_broker_is_up_and_its_gpus_are_read() -> None:
    def unready(facts: AgentFacts) -> list[str]:
        return AgentVitals(SPEC, 60.0, lambda: facts).unready()

    assert unready(FACTS) == []
    assert unready(replace(FACTS, last=None, connected=False)) == [
        "the broker is not reached",
        "the GPUs have not been read yet",
    ]
    assert unready(replace(FACTS, last_age_s=100.0))[0].startswith("the GPUs were last read 100 s ago")
    lost = replace(SAID, reading=replace(SAID.reading, gpus=Gpus(("GPU-a",), (None,), (400.0,))))
    assert unready(replace(FACTS, last=lost)) == ["none of 1 GPUs can be read"]

"""The systems that DynamoLLM compares, as `policies.dynamo` with levels left out: for simulated clusters.

Each is made with a `Profile`; `provisioned` says that its size is fixed once, for the highest load that will come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from polcad.cluster.profiles import Profile
from polcad.cluster.waiting import Queue, Step
from policies.dynamo import Dynamo
from policies.dynamo_options import Options
from policies.dynamo_rescue import rescue


class System(Dynamo):
    """All levels act. `rescue`: what instances do for requests that would be late; None: nothing."""

    options: ClassVar[Options] = Options()
    provisioned: ClassVar[bool] = False
    rescue: ClassVar[staticmethod[[Queue, float, Sequence[Queue]], list[Step]] | None] = None

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, self.options)


class DynamoSystem(System):
    """All levels act, and instances rescue what would be late."""

    rescue = staticmethod(rescue)


class SinglePool(System):
    """One pool for all requests, over eight GPUs an instance at the highest clock."""

    options = Options(pools="one", instances=False, shards=False, clocks=False)
    provisioned = True


class MultiPool(System):
    """A pool for each kind of request."""

    options = Options(instances=False, shards=False, clocks=False)
    provisioned = True


class ScaleInstances(System):
    """A pool a kind, whose instances are scaled."""

    options = Options(shards=False, clocks=False)


class ScaleShards(System):
    """A pool a kind, whose tensor parallelism is chosen."""

    options = Options(instances=False, clocks=False)
    provisioned = True


class ScaleClock(System):
    """A pool a kind, whose clock is chosen."""

    options = Options(instances=False, shards=False)
    provisioned = True

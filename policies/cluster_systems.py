"""The systems that DynamoLLM compares, as `policies.dynamo` with levels left out: for simulated clusters.

Each is made with a `Profile`; `provisioned` says that its size is fixed once, for the highest load that will come.
"""

from __future__ import annotations

from typing import ClassVar

from polcad.cluster.profiles import Profile
from policies.dynamo import Dynamo
from policies.dynamo_options import Options


class DynamoSystem(Dynamo):
    """All levels act."""

    options: ClassVar[Options] = Options()
    provisioned: ClassVar[bool] = False

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, self.options)


class SinglePool(DynamoSystem):
    """One pool for all requests, over eight GPUs an instance at the highest clock."""

    options = Options(pools="one", instances=False, shards=False, clocks=False)
    provisioned = True


class MultiPool(DynamoSystem):
    """A pool for each kind of request."""

    options = Options(instances=False, shards=False, clocks=False)
    provisioned = True


class ScaleInstances(DynamoSystem):
    """A pool a kind, whose instances are scaled."""

    options = Options(shards=False, clocks=False)


class ScaleShards(DynamoSystem):
    """A pool a kind, whose tensor parallelism is chosen."""

    options = Options(instances=False, clocks=False)
    provisioned = True


class ScaleClock(DynamoSystem):
    """A pool a kind, whose clock is chosen."""

    options = Options(instances=False, shards=False)
    provisioned = True

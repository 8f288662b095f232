"""Which servers of a cluster can be emptied: what they hold fits beside what others hold.

Each server that is on draws its share of power for GPUs that nobody uses, and shapes that come and go leave such GPUs
on many servers. Those with least in use are tried first; what they hold goes where the least room suffices, the largest
instances first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def emptied(held: Mapping[int, Sequence[int]], room: Mapping[int, int]) -> list[int]:
    """The servers to be emptied.

    `held`: by server that is on, the GPUs of each of its instances; `room`: by the same servers, the GPUs they have.
    """
    free = {server: room[server] - sum(sizes) for server, sizes in held.items()}
    found = []
    for server in sorted(held, key=lambda each: (sum(held[each]), each)):
        others = {other: gpus for other, gpus in free.items() if other != server}
        if (left := _placed(held[server], others)) is not None:
            free = left
            found.append(server)
    return found


def _placed(sizes: Sequence[int], free: Mapping[int, int]) -> dict[int, int] | None:
    """What is free on each server once instances of these sizes are there too; None where they do not fit."""
    left = dict(free)
    for gpus in sorted(sizes, reverse=True):
        fits = [server for server, room in left.items() if room >= gpus]
        if not fits:
            return None
        left[min(fits, key=left.__getitem__)] -= gpus
    return left

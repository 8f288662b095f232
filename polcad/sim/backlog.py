"""The requests in hand: those of the chunk under way, and those that earlier chunks left unfinished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polcad.sim.profiles import Floats, Hardware
from polcad.sim.requests import Batch, Ints, Pool
from polcad.sim.servers import State, Work


class Backlog:
    """Deals each pool's requests to its servers in turn, so a request meets its twin on the same server."""

    def __init__(self, pools: Sequence[Pool], hardware: Hardware) -> None:
        self._hardware = hardware
        self._sizes = np.array([pool.servers for pool in pools], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._dealt = np.zeros(len(pools), dtype=np.int64)
        self.asked = 0
        self.work = self._empty()
        self._server: Ints = np.zeros(0, dtype=np.int64)  # of each request in hand

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return int(self._starts[-1])

    def _empty(self) -> Work:
        none = np.zeros(0)
        return Work(np.zeros(self.servers + 1, dtype=np.int64), none, none, none, none, none, np.zeros((2, 0)))

    def finished(self) -> tuple[Ints, Floats]:
        """The server and slowdown of each request in hand that both it and its twin have ended."""
        work = self.work
        ended = np.flatnonzero(~np.isnan(work.done_s).any(axis=0))
        driven_s, twin_s = work.done_s[:, ended] - work.arrive_s[ended]
        return self._server[ended], driven_s / twin_s - 1.0

    def take(self, batch: Batch, state: State) -> None:
        """Drop what is finished, add a chunk's requests, and let the runners' places point to where theirs are now."""
        old = self.work
        kept = np.flatnonzero(np.isnan(old.done_s).any(axis=0))
        server = np.concatenate([self._server[kept], self._deal(batch.pool)])
        order = np.argsort(server, kind="stable")  # within a server: as they arrive, the kept ones before
        self.asked += len(batch.arrive_s)
        self.work = self._joined(old, kept, batch, server, order)
        self._server = server[order]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        moved = np.full(len(old.arrive_s) + 1, -1, dtype=np.int64)  # the last entry is of "none"
        moved[kept] = place[: len(kept)]
        self._point(old, moved, np.bincount(self._server_of_kept(old, kept), minlength=self.servers), state)

    def _server_of_kept(self, old: Work, kept: Ints) -> Ints:
        return np.searchsorted(old.first, kept, side="right") - 1

    def _deal(self, pool: Ints) -> Ints:
        server = np.empty(len(pool), dtype=np.int64)
        for index, size in enumerate(self._sizes):
            own = np.flatnonzero(pool == index)
            server[own] = self._starts[index] + (self._dealt[index] + np.arange(len(own))) % size
            self._dealt[index] += len(own)
        return server

    def _joined(self, old: Work, kept: Ints, batch: Batch, server: Ints, order: Ints) -> Work:
        hardware, fresh = self._hardware, batch.prompt_tokens
        columns = (
            (old.arrive_s, batch.arrive_s),
            (old.prompt_s, hardware.prompt_time_s(fresh)),
            (old.prompt_w, hardware.prompt_power_w(fresh)),
            (old.context_k, fresh / 1000),
            (old.output, batch.output_tokens),
        )
        done_s = np.concatenate([old.done_s[:, kept], np.full((2, len(fresh)), np.nan)], axis=1)
        first = np.searchsorted(server[order], np.arange(self.servers + 1))
        arrive_s, prompt_s, prompt_w, context_k, output = (
            np.concatenate([column[kept], new])[order] for column, new in columns
        )
        return Work(first, arrive_s, prompt_s, prompt_w, context_k, output, np.ascontiguousarray(done_s[:, order]))

    def _point(self, old: Work, moved: Ints, kept: Ints, state: State) -> None:
        """A runner that had admitted all of its server's old requests goes on with the first new one."""
        servers = np.arange(len(state.head)) % self.servers
        through = state.head >= old.first[servers + 1]
        state.head[:] = np.where(
            through, self.work.first[servers] + kept[servers], moved[np.where(through, -1, state.head)]
        )
        state.prompt_of[:] = moved[state.prompt_of]
        state.request[:] = moved[state.request]

"""Ten minutes of LLM inference on GPU 0, for a power recording: prompts, decode, idle gaps. It sets nothing.

    python3 benchmarks/gpu/llm_load.py [--seconds 600] [--rate 4]

A decoder of Llama-3.1-8B's shapes (bf16, random weights, KV cache) serves requests as a small engine does: whatever has
arrived gets its prompt computed, one at a time, then all under way get one token each, 40 at most, by CUDA graphs.
Arrivals are Poisson around a weekday's curve pressed into the run, with lengths like those of Azure's 2023 traces (two
of three are chat, one is code). `EVENTS` adds prompt-only bursts and decode-heavy stretches, `GAPS` takes some away.
Unlike a real engine's, its attention reads every cache up to the longest request under way, rounded up.

Needs PyTorch with CUDA and 70 GB of GPU memory, which nothing else here does.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention, silu

DEVICE, LAYERS, WIDTH, INNER, WORDS, HEADS, KV_HEADS, HEAD = "cuda", 32, 4096, 14336, 128256, 32, 8, 128
LENGTHS, BATCHES, LONGEST = (1024, 2048, 4096, 8192), (8, 16, 40), 8192  # of the graphs; tokens of a request
MOST_IN, MOST_OUT, PAD = 7168, 1000, 256
# A weekday by the hour, of the weekly mean (Azure's conversations of 2024).
HOURS: tuple[float, ...] = (1.02, 1.11, 1.09, 0.91, 0.91, 1.0, 1.15, 1.24, 1.27, 1.24, 1.11, 1.17)
HOURS += (1.31, 1.45, 1.53, 1.42, 1.29, 1.24, 1.23, 1.16, 1.05, 0.88, 0.79, 0.82)
CHAT, CODE = ((1020, 4142), (129, 601)), ((1469, 7436), (13, 251))  # tokens in and out: P50 and P99
GAPS = ((0, 15), (140, 165), (290, 325), (470, 482), (585, 600))  # without arrivals, s of 600
BURSTS, STRETCHES = (170, 410, 530), (230, 350, 486)
EVENTS = [(at_s, 60, 6500, 1) for at_s in BURSTS] + [(at_s, 40, 100, 1000) for at_s in STRETCHES]  # s, count, in, out
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(slots=True)
class Request:
    """One request; `done` tokens of its output are there."""

    arrival_s: float
    inputs: int
    outputs: int
    done: int = 0


def arrivals(seconds: float, rate: float, random: Random) -> deque[Request]:
    """The requests of a run, in order; `rate` is the weekly mean a second."""
    scale, t, requests = seconds / 600, 0.0, []
    while (t := t + random.expovariate(rate * max(HOURS))) < seconds:
        idle = any(start <= t / scale < end for start, end in GAPS)
        if not idle and random.random() < HOURS[int(24 * t / seconds)] / max(HOURS):
            (p50, p99), out = CHAT if random.random() < 2 / 3 else CODE
            requests.append(Request(t, _tokens(p50, p99, MOST_IN, random), _tokens(*out, MOST_OUT, random)))
    for at_s, count, inputs, outputs in EVENTS:
        requests += [Request(at_s * scale, inputs, outputs) for _ in range(math.ceil(count * scale))]
    return deque(sorted(requests, key=lambda request: request.arrival_s))


def _tokens(p50: float, p99: float, most: int, random: Random) -> int:
    return min(max(int(random.lognormvariate(math.log(p50), math.log(p99 / p50) / 2.326)), 1), most)


class Decoder:
    """The model and a cache of as many slots as the greatest batch has."""

    def __init__(self) -> None:
        kv = KV_HEADS * HEAD
        sizes = ((WIDTH + 2 * kv, WIDTH), (WIDTH, WIDTH), (2 * INNER, WIDTH), (WIDTH, INNER))
        self.words = _random(WORDS, WIDTH)
        self.layers = [[_random(*size) for size in sizes] for _ in range(LAYERS)]
        self.cache = torch.zeros(LAYERS, 2, BATCHES[-1], KV_HEADS, LONGEST, HEAD, device=DEVICE, dtype=torch.bfloat16)
        angles = torch.outer(torch.arange(LONGEST), 5e5 ** -(torch.arange(0, HEAD, 2) / HEAD))
        self.turns = torch.polar(torch.ones_like(angles), angles).to(DEVICE)
        self.token = torch.zeros(BATCHES[-1], device=DEVICE, dtype=torch.long)
        self.place = torch.zeros_like(self.token)
        self.graphs = {(b, n): self._graph(b, n) for b in BATCHES for n in LENGTHS} if DEVICE == "cuda" else {}
        for tokens in range(PAD, MOST_IN + PAD, PAD):  # the first of each size is slow
            self.prompt(0, tokens)

    def prompt(self, slot: int, tokens: int) -> None:
        """A prompt of random tokens into the cache of `slot`, and its first token; it is padded to a few sizes."""
        padded = -(-tokens // PAD) * PAD

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
            self.cache[layer, :, slot, :, :padded] = torch.cat((k, v))
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)

        words = torch.randint(WORDS, (padded,), device=DEVICE)
        state = self._layers(words, torch.arange(padded, device=DEVICE), attend)
        self.token[slot], self.place[slot] = (state[tokens - 1] @ self.words.T).argmax(), tokens

    def step(self, batch: int, length: int) -> None:
        """One more token for the first `batch` slots, of which none is longer than `length`."""
        b, n = next(x for x in BATCHES if x >= batch), next(x for x in LENGTHS if x >= length)
        self.graphs[b, n].replay() if self.graphs else self._step(b, n)

    def _step(self, batch: int, length: int) -> None:
        place, rows = self.place[:batch], torch.arange(batch, device=DEVICE)
        hidden = torch.arange(length, device=DEVICE) > place[:, None, None, None]

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.cache[layer]
            keys[rows, :, place], values[rows, :, place] = k, v
            scores = q.view(batch, KV_HEADS, -1, HEAD) @ keys[:batch, :, :length].mT * HEAD**-0.5
            return scores.masked_fill(hidden, -math.inf).softmax(-1) @ values[:batch, :, :length]

        state = self._layers(self.token[:batch], place, attend)
        self.token[:batch] = (state @ self.words.T).argmax(-1)
        self.place[:batch] = (place + 1).clamp(max=LONGEST - 1)

    def _layers(self, words: torch.Tensor, place: torch.Tensor, attend: Attend) -> torch.Tensor:
        x, turn, kv = embedding(words, self.words) * WIDTH**0.5, self.turns[place][:, None], KV_HEADS * HEAD
        for layer, (qkv, out, up, down) in enumerate(self.layers):
            parts = (rms_norm(x, (WIDTH,)) @ qkv.T).split((WIDTH, kv, kv), -1)
            q, k, v = (each.reshape(len(x), -1, HEAD) for each in parts)
            x = x + attend(layer, _turned(q, turn), _turned(k, turn), v).reshape(len(x), -1) @ out.T
            gate, value = (rms_norm(x, (WIDTH,)) @ up.T).chunk(2, -1)
            x = x + (silu(gate) * value) @ down.T
        return rms_norm(x, (WIDTH,))

    def _graph(self, batch: int, length: int) -> torch.cuda.CUDAGraph:
        self._step(batch, length)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(batch, length)
        return graph


def _random(*size: int) -> torch.Tensor:
    return torch.randn(*size, device=DEVICE, dtype=torch.bfloat16).mul_(size[-1] ** -0.5)


def _turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class Engine:
    """Serves requests as they arrive, and counts."""

    def __init__(self, requests: deque[Request]) -> None:
        self.requests, self.decoder = requests, Decoder()
        self.slots: list[Request | None] = [None] * BATCHES[-1]
        self.totals: Counter[str] = Counter()

    def turn(self, now_s: float) -> None:
        """The prompts that have arrived, while there is room, then one token for each under way."""
        while self.requests and self.requests[0].arrival_s <= now_s and None in self.slots:
            request, slot = self.requests.popleft(), self.slots.index(None)
            self._time("prompt", self.decoder.prompt, slot, request.inputs)
            self.totals["prompt_tokens"] += request.inputs
            self._advance(slot, request)
        under_way = {slot: request for slot, request in enumerate(self.slots) if request}
        if under_way:
            longest = max(request.inputs + request.done for request in under_way.values())
            self._time("decode", self.decoder.step, max(under_way) + 1, longest + 1)
        else:
            time.sleep(0.002)
        for slot, request in under_way.items():
            self._advance(slot, request)

    def _advance(self, slot: int, request: Request) -> None:
        request.done += 1
        ended = request.done >= request.outputs
        self.slots[slot] = None if ended else request
        self.totals.update(output_tokens=1, served=int(ended))

    def _time(self, what: str, work: Callable[[int, int], None], *sizes: int) -> None:
        start_s = time.perf_counter()
        work(*sizes)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.totals.update({f"{what}_ms": round(1000 * (time.perf_counter() - start_s)), f"{what}s": 1})


@torch.inference_mode()
def main() -> None:
    """Run the load: a line each ten seconds, and the totals as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the run; the day is pressed into it")
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second, the mean of a week")
    options = parser.parse_args()
    engine = Engine(arrivals(options.seconds, options.rate, Random(1)))  # noqa: S311  # the same load each time
    start_s, next_s = time.monotonic(), 0.0
    print(f"start {time.time():.1f}: {len(engine.requests)} requests in {options.seconds:g} s", flush=True)
    while (now_s := time.monotonic() - start_s) < options.seconds:
        engine.turn(now_s)
        if now_s >= next_s:
            next_s += 10
            print(f"{now_s:5.0f} s: {sum(map(bool, engine.slots))} under way, {dict(engine.totals)}", flush=True)
    print(json.dumps(engine.totals))


if __name__ == "__main__":
    main()

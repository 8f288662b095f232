"""Holds the simulated row against measurements: what was fitted to, and what was held out.

    python scripts/calibrate_sim.py DATA [--json]

It reads the folders perseus, beam, splitwise and mlenergy under DATA. Errors are relative. Each study is split: a
model of the same form is made from one part (fit) and judged on the other (held out). "in use" judges polcad's own
figures on all of it; "transfer" does so on another model's measurements, which no figure claims to fit.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polcad.curve import power_frac, time_ratio
from polcad.model import Role
from polcad.sim.profiles import DGX_A100, DGX_H100, Hardware

_LOWEST_FRAC = 0.6  # of the clock: nothing but the brake goes below it
_BEAM = "dvfs_profile_NVIDIA_{}_one.csv.gz"
_BEAM_FILES = (  # fitted to, held out, and of another model
    "A100-SXM4-80GB_meta-llama_Llama-3.3-70B-Instruct_tp4_pp2",
    "A100-SXM4-80GB_meta-llama_Llama-3.3-70B-Instruct_tp2_pp4",
    "A100-SXM4-80GB_Qwen_Qwen2.5-14B_tp1_pp2",
)
_BATCHES = {Role.TOKEN: (1, 64), Role.MIXED: (65, 128), Role.TRAINING: (192, 320)}
_HELD_OUT_REQUESTS = {(256, 1), (1024, 1), (4096, 1), (512, 2), (512, 8)}  # prompt tokens, requests together
_MOST_TOGETHER = 16  # of `Hardware.batch_max`
_MEASURED_TOKENS = 128  # of longer outputs the mean includes requests that ended early


class Errors(NamedTuple):
    """One line: what is compared, on which part of which data, how many points, and how far off they are."""

    what: str
    data: str
    part: str
    points: int
    mean: float
    p95: float


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lines = list(compare(options.folder))
    if options.json:
        print(json.dumps([line._asdict() for line in lines]))
        return
    print("| what | data | part | points | mean error | 95 % of errors below |\n|---|---|---|---|---|---|")
    for line in lines:
        print(f"| {line.what} | {line.data} | {line.part} | {line.points} | {line.mean:.1%} | {line.p95:.1%} |")


def compare(folder: Path) -> Iterator[Errors]:
    """Everything that can be compared."""
    yield from _perseus(folder / "perseus" / "stage_profile_gpt3-175b_a100_sxm_bf16.csv")
    yield from _beam(folder / "beam")
    for hardware, name in ((DGX_A100, "a100-80gb"), (DGX_H100, "h100-80gb")):
        yield from _requests(folder / "splitwise" / "perf_model.csv", name, hardware)
    yield from _token_power(folder / "mlenergy" / "leaderboard_v3_llm_shared.csv.gz")


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(csv.DictReader(file))


def _errors(what: str, data: str, part: str, errors: Iterable[float]) -> Errors:
    sizes = np.abs(list(errors))
    return Errors(what, data, part, len(sizes), float(sizes.mean()), float(np.quantile(sizes, 0.95)))


Sweep = dict[float, tuple[float, float]]  # by clock, fraction of the highest: time and power, of those there
Answer = Callable[[float], tuple[float, float]]


def _perseus(path: Path) -> Iterator[Errors]:
    sweeps: dict[int, dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in _rows(path):
        if row["instruction"] == "forward":
            sweeps[int(row["stage"])][float(row["frequency"])] = (float(row["time"]), float(row["energy"]))
    fit, held_out = ([_ratios(sweep) for stage, sweep in sweeps.items() if stage % 2 == odd] for odd in (0, 1))
    yield from _responses("prompt", "Perseus GPT-3 175B", Role.PROMPT, fit, held_out)


def _beam(folder: Path) -> Iterator[Errors]:
    for role, (low, high) in _BATCHES.items():
        fit, held_out, other = (
            [_ratios(sweep) for batch, sweep in _beam_sweeps(folder / _BEAM.format(name)) if low <= batch <= high]
            for name in _BEAM_FILES
        )
        yield from _responses(role.value, "BEAM Llama-3.3-70B", role, fit, held_out)
        yield from _judged(role.value, "BEAM Qwen2.5-14B", "transfer", _in_use(role), other)


def _beam_sweeps(path: Path) -> list[tuple[int, dict[float, tuple[float, float]]]]:
    sweeps: dict[tuple[str, str], dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in _rows(path):
        if row["valid"] == "1":
            measured = float(row["time_taken"]), float(row["energy_consumption"])
            sweeps[row["batch_size"], row["total_ctx_len"]][float(row["clock"])] = measured
    return [(int(batch), sweep) for (batch, _), sweep in sweeps.items()]


def _ratios(sweep: dict[float, tuple[float, float]]) -> Sweep:
    """Time and energy by MHz, as time and power by fractions."""
    top = max(sweep)
    top_s, top_j = sweep[top]
    return {
        mhz / top: (seconds / top_s, (joules / seconds) / (top_j / top_s))
        for mhz, (seconds, joules) in sweep.items()
        if mhz / top >= _LOWEST_FRAC
    }


def _responses(what: str, data: str, role: Role, fit: list[Sweep], held_out: list[Sweep]) -> Iterator[Errors]:
    """The curve of the fit part's medians on both parts, and the one that polcad uses."""
    fitted = _fitted_curve(fit)
    yield from _judged(what, data, "fit", fitted, fit)
    yield from _judged(what, data, "held out", fitted, held_out)
    yield from _judged(what, data, "in use", _in_use(role), fit + held_out)


def _fitted_curve(sweeps: list[Sweep]) -> Answer:
    clocks = sorted({clock for sweep in sweeps for clock in sweep})
    medians = np.array([np.median([sweep[clock] for sweep in sweeps if clock in sweep], axis=0) for clock in clocks])
    return lambda clock: (
        float(np.interp(clock, clocks, medians[:, 0])),
        float(np.interp(clock, clocks, medians[:, 1])),
    )


def _in_use(role: Role) -> Answer:
    return lambda clock: (time_ratio(role, clock), power_frac(role, clock))


def _judged(what: str, data: str, part: str, answer: Answer, sweeps: list[Sweep]) -> Iterator[Errors]:
    pairs = [(answer(clock), measured) for sweep in sweeps for clock, measured in sweep.items()]
    for place, quantity in enumerate(("time", "power")):
        errors = [model[place] / measured[place] - 1 for model, measured in pairs]
        yield _errors(f"{what} phase: {quantity} against clock", data, part, errors)


def _requests(path: Path, board: str, hardware: Hardware) -> Iterator[Errors]:
    """Whole requests: their prompt, and 127 iterations. Keys: prompt tokens, requests together. Values: ms, ms."""
    rows: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in _rows(path):
        together, tokens = int(row["batch_size"]), int(row["token_size"])
        own = row["model"] == "bloom-176b" and row["hardware"] == board
        if own and together <= _MOST_TOGETHER and tokens == _MEASURED_TOKENS:
            rows[int(row["prompt_size"]), together].append((float(row["prompt_time"]), float(row["token_time"])))
    measured = {key: tuple(np.median(values, axis=0).tolist()) for key, values in rows.items()}
    held_out = {key: value for key, value in measured.items() if key in _HELD_OUT_REQUESTS}
    fit = {key: value for key, value in measured.items() if key not in _HELD_OUT_REQUESTS}
    fitted = _fitted_times(hardware, fit)
    for part, model, points in (("fit", fitted, fit), ("held out", fitted, held_out), ("in use", hardware, measured)):
        errors = [
            1000 * _request_s(model, *key) / (prompt_ms + 127 * token_ms) - 1
            for key, (prompt_ms, token_ms) in points.items()
        ]
        yield _errors("request time", f"Splitwise BLOOM-176B {board}", part, errors)


def _fitted_times(hardware: Hardware, fit: dict[tuple[int, int], tuple[float, ...]]) -> Hardware:
    """The same hardware, with times from these measurements alone."""
    prompts = {prompt * together: prompt_ms for (prompt, together), (prompt_ms, _) in sorted(fit.items())}
    alone = sorted(prompts.items())
    terms = np.array([(1.0, together, prompt * together / 1000) for prompt, together in fit])
    token_ms = np.array([each for _, each in fit.values()])
    base, request, context = (np.linalg.lstsq(terms, token_ms, rcond=None)[0] / 1000).tolist()
    return replace(
        hardware,
        prompt_tokens=tuple(float(tokens) for tokens, _ in alone),
        prompt_s=tuple(ms / 1000 for _, ms in alone),
        prompt_frac=(1.0,) * len(alone),
        token_s=base,
        token_request_s=request,
        token_context_s=context,
    )


def _request_s(hardware: Hardware, prompt: int, together: int) -> float:
    tokens = float(prompt * together)
    prompt_s = float(hardware.prompt_time_s(np.array([tokens]))[0])
    return prompt_s + 127 * hardware.token_time_s(together, tokens)


def _token_power(path: Path) -> Iterator[Errors]:
    """H100 power against batch, of two Llama 70B; every other batch size is held out, judged by straight lines."""
    points = sorted(
        (float(row["avg_batch"]), float(row["avg_power_w"]) / float(row["num_gpus"]))
        for row in _rows(path)
        if row["gpu"] == "H100" and row["model"] in {f"meta-llama/Llama-3.{i}-70B-Instruct" for i in (1, 3)}
    )
    sizes = sorted({int(batch + 1).bit_length() for batch, _ in points})
    fit = [point for point in points if sizes.index(int(point[0] + 1).bit_length()) % 2 == 0]
    held_out = [point for point in points if point not in fit]
    batches, watts = np.array(fit).T
    for part, chosen in (("fit", fit), ("held out", held_out)):
        errors = [float(np.interp(batch, batches, watts)) / power_w - 1 for batch, power_w in chosen]
        yield _errors("token phase power", "ML.ENERGY Llama-3.1/3.3-70B H100", part, errors)
    used = [float(DGX_H100.token_power_w(np.array(batch))) / DGX_H100.gpus / power_w - 1 for batch, power_w in points]
    yield _errors("token phase power", "ML.ENERGY Llama-3.1/3.3-70B H100", "in use", used)


if __name__ == "__main__":
    main()

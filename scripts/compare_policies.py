"""Policies side by side on the modelled row: the same requests for each, over seeds.

    python scripts/compare_policies.py polca predictive predictive:ladder=graded [--servers 52 56] [--weeks 1]
        [--seeds 3] [--first-seed 1] [--actuation out-of-band] [--processes 2]

A policy's options follow its name. Per cent unless said otherwise; in brackets the lowest and highest over the seeds.
"""

from __future__ import annotations

import argparse
import itertools

from polcad.progress import bar
from polcad.reproduce import Case, run
from polcad.reproduction import HEAD, line, table


def main() -> None:
    """Run all and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--servers", type=int, nargs="+", default=[52, 56])
    parser.add_argument("--weeks", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--actuation", default="out-of-band")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    named = {
        (str(servers), policy): case_of(policy, servers, args.actuation)
        for servers, policy in itertools.product(args.servers, args.policies)
    }
    with bar("compare policies", len(named) * args.seeds) as advance:
        results = run(
            args.weeks,
            range(args.first_seed, args.first_seed + args.seeds),
            args.processes,
            advance,
            list(named.values()),
        )
    print(
        "\n".join(table(("servers", "policy", *HEAD), [(*name, *line(results[case])) for name, case in named.items()]))
    )


def case_of(policy: str, servers: int, actuation: str) -> Case:
    """``name:option=value,…`` as a case."""
    name, _, options = policy.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    return Case(servers, name, tuple((key, value_of(value)) for key, _, value in pairs), actuation)


def value_of(text: str) -> float | str:
    """A number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()

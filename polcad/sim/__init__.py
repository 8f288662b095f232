"""A row of LLM servers as a model, with the live controller inside: how many servers fit under a budget?

Pure: no I/O, no asyncio, no clock; the same `RowModel` and seed give the same bytes. What to use:

- `profiles.DGX_A100`, `profiles.DGX_H100`: `Hardware`, each figure with unit and source (`profiles.parameters`).
- `load.Load` (`mix`, diurnal, weekly and bursty arrivals) and `load.Trace` (somebody's requests): `requests.Requests`.
- `row.RowModel`: hardware, pools of servers, load, meter, actuation path, policy, guard, injections, seed, length.
- `row.simulate(model, progress=..., tap=...) -> result.RowResult`: figures (fractions of the budget), series by the
  minute, duration curve, slowdowns by priority, setpoints in force, events.

Every server is modelled twice on the same requests: as it is driven, and as its *twin*, which nobody ever slows. A
request's slowdown is its latency over its twin's, less one; the twins' power is what the row would draw uncapped. Load
is per server, so the twin is also the row that is not oversubscribed.
"""

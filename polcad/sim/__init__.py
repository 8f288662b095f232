"""A row of LLM servers as a model, with the live controller inside: so that one can ask how many servers fit.

Pure: no I/O, no asyncio, no clock; the same `RowModel` and seed give the same bytes. What to use:

- `profiles.DGX_A100`, `profiles.DGX_H100`: `Hardware`, each figure with unit and source (`profiles.parameters`).
- `requests.Load` (a mix under diurnal, weekly and bursty arrivals) and `requests.Trace` (somebody's requests).
- `row.RowModel`: hardware, load, meter, actuation path (`actuation.PATHS`), policy, guard, faults
  (`inject.Injection`), seed, length.
- `row.simulate(model, progress=..., tap=...) -> result.RowResult`: figures (fractions of the budget), series by the
  minute, duration curve, slowdowns by priority, setpoints in force, events.

Every server is modelled twice on the same requests: as it is driven, and as its *twin*, which nobody ever slows. A
request's slowdown is its latency over its twin's, less one; the twins' power is what the row would draw uncapped. Load
is per server, so the twin is also the row that is not oversubscribed.

The other model is of a serving cluster that scaling hints shape: `cluster_model.ClusterModel` (a planner, what is asked
of it as `asking.Week` or `asking.Recorded`, a profile of `polcad.cluster`, faults), `cluster.simulate(model) ->
cluster_result.ClusterResult`. Requests are served one by one (`serving`), and what is planned is carried out with all
that it costs (`deployment`).
"""

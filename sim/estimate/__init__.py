"""Estimates of whole models: their time and area, and other machines on the same work.

A `workloads.Workload` on a `machine.Machine`, under codes for its heads (`head_plans`) and widths
for its `linear_layers`, gives a time (`performance`) and LUTs (`area`). On top of these:
`comparison` with the `peers`, also at equal `gates`, and its `targets`, `sweep` over
a `grid` of machines, of which `pareto` finds the best points, `paper_figures`, which the model must
meet, and `block_study`, the cost of block sizes.
"""

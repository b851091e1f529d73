"""How long the planner takes: a whole plan from a cold start, and fleets of twenty models on ever more nodes."""

from __future__ import annotations

import time

import fleet as cases
from everyday import ROOT, command, median_s
from printing import seconds

FLEETS, FLEET_LOAD, ALTERNATIVE_S = (8, 16, 32, 64), 0.9, 15.0
SITE = ROOT / "inventory" / "example-h100"


def run() -> None:
    """Measure and print."""
    seconds("plan, cold command line, example-h100", median_s(3, command("plan", "-i", str(SITE))))
    fleets()


def fleets() -> None:
    """Twenty models on ever more nodes: our time, what it proves, and the same question as one model of all nodes."""
    from gpu_cutover.planning.fleet import place

    place(cases.nodes(2), cases.models(2), 1.0, 1)  # the solver's import is not a fleet's cost
    print(f"{'20 models on':<14}{'ours':>9}{'per node':>10}{'nodes':>7}{'bound':>7}{'served':>8}{'gap':>7}", end="")
    print(f"   | one model of all nodes, {ALTERNATIVE_S:.0f} s: nodes, served, proven")
    for count in FLEETS:
        nodes, models = cases.nodes(count), cases.models(count, FLEET_LOAD)
        began = time.perf_counter()
        plan = place(nodes, models, 30.0, 1)
        took = time.perf_counter() - began
        print(
            f"{count:>4} nodes    {took:>7.2f} s{took / count * 1000:>7.0f} ms{plan.nodes_used:>7}{plan.bound:>7}"
            f"{plan.served_share:>8.1%}{plan.gap:>7.1%}",
            end="",
            flush=True,
        )
        other = cases.naive(nodes, models, ALTERNATIVE_S, 2)
        print(f"   | {other['nodes']:>3}  {other['served']:>6.1%}  {'yes' if other['proven'] else 'no'}", flush=True)

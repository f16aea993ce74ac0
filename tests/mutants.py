"""Mutants of the accelerator, for a night.

``python -m tests.mutants --log build/mutants.json`` tries 1,200 of them, of one core and of a
cluster, prints the score and what survived, and keeps the list. Ends with 1 if the score is below
95 %. What is done stays in ``build/mutants``: the same command goes on where the last one ended.
"""

import argparse
import sys
from pathlib import Path

from paro.cli.console import progress_bar
from paro.config import files
from sim.cache import cache_folder
from sim.verify.mutation import LEAST_SCORE, run_mutation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=1200, help="how many Yosys chooses")
    parser.add_argument("--processes", type=int, default=2, help="mutants at a time")
    parser.add_argument("--log", type=Path, help="JSON file that receives the list")
    arguments = parser.parse_args()
    with progress_bar("mutants") as progress:
        report = run_mutation(
            arguments.mutants,
            cache_folder(),
            Path("build") / "mutants",
            processes=arguments.processes,
            progress=progress,
        )
    if arguments.log is not None:
        files.write_json(arguments.log, report.as_dict())
    for result in report.survivors:
        print(f"{result.subject}: {result.mutant.text}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report.counts.items()))
    print(
        f"{len(report.results)} mutants: {counts}; score {report.score:.1%}, "
        f"{report.score_without_time:.1%} without what differs in time alone"
    )
    sys.exit(report.score < LEAST_SCORE)


if __name__ == "__main__":
    main()

"""Random cases of random configurations, for a night.

``python -m tests.nightly --seeds 1000 --log build/nightly.json`` plays them, prints a line of each
and keeps the report as it grows. Ends with 1 if a case differs, or if the bins of a thousand seeds
are not all met.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from sim.cache import cache_folder
from sim.cosim.session import Session
from sim.cosim.simulators import Verilator
from sim.verify.random_runs import run_cases

#: The work of so many seeds, from 0 on, meets every bin of its own: a test shows it. Bins of what
#: an error of the bus met are told by the simulation alone.
ALL_BINS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=ALL_BINS, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--log", type=Path, help="JSON file that receives the report")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Verilator(), cache_folder(), Path(folder) / "run")
        report = run_cases(
            seeds, session, log=lambda line: print(line, flush=True), path=arguments.log
        )
    bins, missed = report.bins, report.bins["missed"]
    print(
        f"{len(report.cases)} seeds, {len(report.differences)} of them differ; {report.words} "
        f"words, {report.cycles} cycles, {bins['hit']} of {bins['all']} bins, "
        f"{report.seconds:.0f} s"
    )
    whole = seeds.start == 0 and len(seeds) >= ALL_BINS
    if whole and missed:
        print(f"bins that no seed has met: {'; '.join(missed)}")
    sys.exit(not report.passed or bool(whole and missed))


if __name__ == "__main__":
    main()

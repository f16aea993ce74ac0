"""`paro verify`: how far a generated device can be trusted."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from paro.cli.console import format_value, header_table, progress_bar, stderr, stdout
from paro.cli.options import ConfigChoice, OutputDirectory, with_config
from paro.config import ParoError

if TYPE_CHECKING:
    from sim.verify.report import Report
    from sim.verify.test_plan import FeatureResult


class StageName(Enum):
    """Stages of `sim.verify.test_plan.Stage`, without loading it."""

    V1 = "V1"
    V2 = "V2"
    V3 = "V3"


@with_config
def verify(
    output: OutputDirectory,
    config: ConfigChoice,
    stage: Annotated[
        StageName, typer.Option(help="how far: V1 in minutes, V2 longer, V3 for a night")
    ] = StageName.V1,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="what all that is random is drawn from")
    ] = 1,
    cases: Annotated[
        int | None,
        typer.Option("--cases", metavar="N", help="random cases; by default those of the stage"),
    ] = None,
    mutants: Annotated[
        int | None,
        typer.Option("--mutants", metavar="N", help="faults put into the RTL; likewise"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="only this check of the stage; repeatable"),
    ] = None,
    tests: Annotated[
        Path | None,
        typer.Option(
            "--tests",
            metavar="XML",
            help="results of the project's test suite, of pytest --junitxml: they are joined with "
            "the test plan",
        ),
    ] = None,
) -> None:
    """Verify the device of a configuration: your own one, however odd.

    Writes DIR/report.json and DIR/report.html: each check with what it counted, failures and how
    to see them again. Exit status 1 if one fails.

    [bold]Examples[/bold]

      paro verify --preset tiny -o verify

      paro verify --rows 4 --cols 16 --block 32 --query-rows 2 --stage V2 -o verify

      paro verify --config mine.toml --stage V3 --cases 200 --mutants 500 -o verify

      paro verify --stage V3 --only coverage -o verify

      pytest --junitxml tests.xml; paro verify --tests tests.xml -o verify
    """
    for name, value in (("cases", cases), ("mutants", mutants)):
        if value is not None and value < 1:
            raise ParoError(f"--{name} {value} is not legal; legal: 1 or more")
    core = config.build()

    from sim.verify.test_plan import Stage, load_plan, read_results, results

    features = [] if tests is None else results(load_plan(), read_results(tests))

    from gen.verilog import generator_name
    from sim.cache import cache_folder
    from sim.verify.report import PAGE_FILE, REPORT_FILE, Report, tool_versions, write_report
    from sim.verify.stages import Settings, kinds_of

    settings = Settings(core, Stage(stage.value), seed, cases, mutants, output, cache_folder())
    checks = []
    for kind in kinds_of(settings.stage, only or ()):
        with progress_bar(kind.name) as progress:
            checks.append(kind.check(settings, progress))
    report = Report(core, stage.value, seed, generator_name(), tool_versions(), checks, features)
    write_report(report, output)
    stdout.print(_checks_table(report))
    for check in checks:
        for sentence in check.failures:
            stderr.print(f"{check.name}: {sentence}", highlight=False, soft_wrap=True)
    if features:
        stdout.print(_features_table(features))
    stdout.print(f"written: {output / REPORT_FILE}, {PAGE_FILE}", highlight=False)
    if not report.holds:
        raise typer.Exit(1)


def _checks_table(report: "Report") -> Table:
    table = header_table(
        f"stage {report.stage}",
        ("check", "holds", "", "of", "must hold", "seconds"),
        left=("check", "must hold"),
    )
    for check in report.checks:
        table.add_row(
            check.name,
            format_value(check.holds),
            format_value(check.done),
            f"{check.total:,} {check.unit}",
            check.goal,
            format_value(check.seconds),
        )
    return table


def _features_table(features: "list[FeatureResult]") -> Table:
    columns = ("block", "feature", "stage", "passed", "failed", "skipped")
    table = header_table("test plan", columns, left=columns[:3])
    for feature in features:
        counts = (feature.passed, feature.failed, feature.skipped)
        table.add_row(feature.block, feature.name, feature.stage, *map(format_value, counts))
    return table

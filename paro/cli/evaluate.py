"""`paro evaluate`: quality of captured heads, or of a model's videos, under a plan."""

from pathlib import Path
from typing import Annotated, Any

import typer

from paro.cli.console import key_value_table, progress_bar, stdout
from paro.cli.options import (
    DeviceOption,
    DtypeOption,
    FramesOption,
    HeadsOption,
    HeightOption,
    OutputDirectory,
    PromptOption,
    StepsOption,
    VariantOption,
    WidthOption,
    check_plan,
    parse_heads,
)
from paro.cli.results import heads_table
from paro.config import ParoError
from paro.config.files import check_file


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="CAPTURE...|MODEL",
            help="captures or folders of them; or a model, as `paro capture` takes it",
            show_default=False,
        ),
    ],
    plan: Annotated[
        Path,
        typer.Option(
            "--plan", metavar="PLAN", help="plan that `paro calibrate` wrote, or its folder of them"
        ),
    ],
    output: OutputDirectory,
    heads: HeadsOption = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="integer (bit exact), float (mask only), digit, paper, int8, int4, pv-int8, "
            "pv-int4",
        ),
    ] = "integer",
    groups: Annotated[
        str, typer.Option("--groups", metavar="WHAT", help="scales of uniform P: block or row")
    ] = "block",
    report: Annotated[
        bool,
        typer.Option("--report", help="also DIR/report.html: maps, bit maps, quality against bits"),
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="N",
            help="videos, default 4",
            rich_help_panel="Running a model",
        ),
    ] = None,
    steps: StepsOption = None,
    prompt: PromptOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    frames: FramesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    variant: VariantOption = None,
) -> None:
    """Compute attention as a plan says and score it against the exact one.

    Of a capture: whole heads against float64; DIR/report.json and DIR/outputs.safetensors, as `paro
    cosim` writes them. Of several: a folder in DIR for each, and DIR/report.json over all of them.
    Of a model: it generates videos through float attention and through the planned one;
    DIR/report.json (PSNR, SSIM, error of each attention by step and layer), DIR/attention.png,
    DIR/film.gif (above float, below planned) and DIR/contact_sheet.png.

    [bold]Examples[/bold]

      paro evaluate capture.safetensors --plan plan.safetensors -o evaluation --report

      paro evaluate captures/ --plan plan.safetensors -o evaluation --format paper

      paro evaluate moving-digits --plan plan.safetensors -o videos --samples 20
    """
    from firmware_model.choices import METHODS, check_choice
    from firmware_model.models.names import is_model

    check_choice("format", format_, METHODS)
    running = {
        "samples": samples,
        "steps": steps,
        "prompt": prompt,
        "height": height,
        "width": width,
        "frames": frames,
        "device": device,
        "dtype": dtype,
        "variant": variant,
    }
    models = [source for source in sources if is_model(source)]
    if models and len(sources) > 1:
        raise ParoError(f"{models[0]} is a model, and stands alone; legal: captures, or one model")
    missing = [source for source in sources if source not in models and not source.exists()]
    if missing:
        raise ParoError(f"{missing[0]} does not exist; legal: captures, or a model")
    if models and (heads is not None or report):
        raise ParoError("--heads and --report are for captures, not for a model")
    for name, value in running.items():
        if value is not None and not models:
            raise ParoError(f"--{name} is for a model, but {sources[0]} is a capture")
    if models:
        check_file(plan, "plan")
    else:
        check_plan(plan)

    from firmware_model.reference.methods import Method

    method = Method(format_, groups)  # type: ignore[arg-type]  # refused if not legal
    if models:
        _evaluate_model(sources[0], plan, method, output, running)
    else:
        _evaluate_captures(sources, plan, method, output, heads, report)


def _evaluate_captures(
    paths: list[Path], plan: Path, method: Any, output: Path, heads: str | None, report: bool
) -> None:
    from firmware_model.calibration.sensitivity import model_config
    from firmware_model.capture import open_captures
    from firmware_model.progress import Steps
    from firmware_model.quality import evaluate as evaluation
    from paro.cli.inputs import find_plans
    from paro.config.files import write_json

    captures = open_captures(paths)
    plans = find_plans(plan, captures)
    chosen = [
        list(found.heads) if heads is None else parse_heads(heads, capture.heads)
        for capture, found in zip(captures, plans, strict=True)
    ]
    studied = None
    if report:
        whole = all(
            len(some) == capture.heads for some, capture in zip(chosen, captures, strict=True)
        )
        studied = None if whole else chosen[0]
        if (studied and any(some != studied for some in chosen)) or len(
            {found.block for found in plans}
        ) > 1:
            raise ParoError("--report needs the same heads of all captures, and one block size")
    results = []
    with progress_bar(method.name) as progress:
        rows = sum(len(some) * found.blocks for some, found in zip(chosen, plans, strict=True))
        counter = Steps(progress, rows)
        for capture, found, some in zip(captures, plans, chosen, strict=True):
            config = model_config(capture, found.block)
            result = evaluation.evaluate(
                capture.load(),
                found,
                some,
                config,
                progress=lambda _done, _total: counter.advance(),
                method=method,
            )
            results.append(result)
    for capture, result in zip(captures, results, strict=True):
        folder = output if len(captures) == 1 else output / capture.name
        evaluation.write_outputs(folder, result.results, result.report)
        stdout.print(heads_table(f"evaluation {folder}", result.report))
    summary = evaluation.summary([result.report for result in results])
    if len(captures) > 1:
        write_json(output / evaluation.REPORT_FILE, summary)
    table = {name.replace("_", " "): value for name, value in summary["all"].items()}
    stdout.print(key_value_table("all heads", table))
    if report:
        from paro.cli.report import write_report

        path = output / "report.html"
        with progress_bar("report") as progress:
            loaded = [capture.load() for capture in captures]
            write_report(path, loaded, plans, results, summary["all"], studied, progress)
        stdout.print(f"drawn: {path}", highlight=False)


def _evaluate_model(
    path: Path, plan: Path, method: Any, output: Path, running: dict[str, Any]
) -> None:
    from firmware_model.calibration.plan import load_model_plan
    from firmware_model.models.generation import compare_generation
    from firmware_model.models.models import open_model
    from paro.cli.drawing import attention_figure, save_contact_sheet, save_figure, save_film
    from paro.config.files import write_json

    samples = running.pop("samples")
    loaded = load_model_plan(plan)
    pipeline = open_model(path, **running)
    with progress_bar("generate") as progress:
        result = compare_generation(
            pipeline, loaded, method, 4 if samples is None else samples, progress
        )
    save_film(result.own, result.planned, output / "film.gif")
    save_contact_sheet(result.own, result.planned, output / "contact_sheet.png")
    save_figure(attention_figure(result.report), output / "attention.png")
    write_json(output / "report.json", {"model": str(path), **result.report})
    shown = ("format", "mean_bits", "density", "samples", "psnr_db", "ssim", "worst_psnr_db")
    table = {name.replace("_", " "): result.report[name] for name in shown}
    stdout.print(key_value_table(f"videos {output}", table))

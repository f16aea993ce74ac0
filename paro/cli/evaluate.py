"""`paro evaluate`: quality of captured heads and layers, or of a model's videos, under a plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from paro.cli.results import heads_table, layers_table
from paro.config import ParoError
from paro.config.files import check_file

if TYPE_CHECKING:
    from firmware_model.capture import CaptureFile
    from firmware_model.layer import LayerFile
    from paro.cli.inputs import Plans


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
    """Compute attention and linear layers as a plan says and score them against the exact ones.

    Of a capture: whole heads, or the outputs of a layer, against float64; DIR/report.json and
    DIR/outputs.safetensors, as `paro cosim` writes them. Of several: a folder in DIR for each, and
    DIR/report.json over all of them. Of a model: it generates videos in float, and with what the
    plan holds (attention, linear layers or both) through the integer model; DIR/report.json (PSNR,
    SSIM, errors by step and layer), DIR/attention.png and DIR/linear.png, DIR/film.gif (above
    float, below planned) and DIR/contact_sheet.png.

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
    from firmware_model.choices import INTEGER
    from firmware_model.layer import open_sources
    from firmware_model.quality import evaluate as evaluation
    from paro.cli.inputs import Plans
    from paro.config.files import write_json

    captures, layers = open_sources(paths)
    if not captures and (heads is not None or report or method.name != INTEGER):
        raise ParoError("--heads, --report and --format are for attention; there are layers alone")
    single = len(captures) + len(layers) == 1
    summary: dict[str, Any] = {}
    if layers:
        summary |= _evaluate_layers(layers, Plans(plan), output, single)
    if captures:
        summary |= _evaluate_heads(captures, plan, method, output, heads, report, single)
    if not single:
        write_json(output / evaluation.REPORT_FILE, summary)


def _evaluate_layers(
    layers: "Sequence[LayerFile]", plans: "Plans", output: Path, single: bool
) -> dict[str, Any]:
    """Score linear layers; returns their part of the report over all."""
    from firmware_model.calibration.layers import tile_config
    from firmware_model.quality.layers import (
        layer_report,
        layer_summary,
        run_layer,
        write_layer_outputs,
    )

    reports = []
    with progress_bar("layers") as progress:
        for index, source in enumerate(layers):
            layer = source.load()
            plan = plans.layer(layer)
            config = tile_config(plan.block, plan.head_dim)
            result = run_layer(layer, plan, config)
            report = {"bit_exact": None, "outputs_compared": 0, "mismatches": None}
            report |= layer_report(layer, plan, config, result)
            write_layer_outputs(output if single else output / layer.path.stem, result, report)
            reports.append(report)
            progress(index + 1, len(layers))
    summary = layer_summary(reports)
    stdout.print(layers_table(f"evaluation {output}", reports))
    table = {name.replace("_", " "): value for name, value in summary.items()}
    stdout.print(key_value_table("all layers", table))
    return {"all_layers": summary, "layers": reports}


def _evaluate_heads(
    captures: "Sequence[CaptureFile]",
    plan: Path,
    method: Any,
    output: Path,
    heads: str | None,
    report: bool,
    single: bool,
) -> dict[str, Any]:
    """Score heads; returns their part of the report over all."""
    from firmware_model.calibration.sensitivity import model_config
    from firmware_model.progress import Steps
    from firmware_model.quality import evaluate as evaluation
    from paro.cli.inputs import find_plans

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
        folder = output if single else output / capture.name
        evaluation.write_outputs(folder, result.results, result.report)
        stdout.print(heads_table(f"evaluation {folder}", result.report))
    summary = evaluation.summary([result.report for result in results])
    table = {name.replace("_", " "): value for name, value in summary["all"].items()}
    stdout.print(key_value_table("all heads", table))
    if report:
        from paro.cli.report import write_report

        path = output / "report.html"
        with progress_bar("report") as progress:
            loaded = [capture.load() for capture in captures]
            write_report(path, loaded, plans, results, summary["all"], studied, progress)
        stdout.print(f"drawn: {path}", highlight=False)
    return summary


def _evaluate_model(
    path: Path, plan: Path, method: Any, output: Path, running: dict[str, Any]
) -> None:
    from firmware_model.calibration.plan import load_model_plan
    from firmware_model.models.generation import compare_generation
    from firmware_model.models.models import open_model
    from paro.cli.drawing import errors_figure, save_contact_sheet, save_figure, save_film
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
    for name, bits in (("attention", "mean_bits"), ("linear", "weight_bits")):
        if result.report[name]:
            title = f"{name} against float, {result.report[bits]:.2f} bits"
            save_figure(errors_figure(result.report[name], title), output / f"{name}.png")
    write_json(output / "report.json", {"model": str(path), **result.report})
    shown = (
        *("format", "mean_bits", "density", "weight_bits"),
        *("samples", "psnr_db", "ssim", "worst_psnr_db"),
    )
    table = {name.replace("_", " "): result.report[name] for name in shown}
    stdout.print(key_value_table(f"videos {output}", table))

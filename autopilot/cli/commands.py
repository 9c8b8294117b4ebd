"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autopilot import __version__
from autopilot.cli.cache import cache_app
from autopilot.cli.output import print_json, print_table, print_text, watching
from autopilot.cli.source import find_result
from autopilot.errors import BadInput

EPILOG = (
    "Exit codes: 0 the budget is met, 1 the program failed, 2 bad input, 3 nothing fits the budget, "
    "4 undecided, 130 interrupted (the same command goes on)."
)

app = typer.Typer(
    help="The fastest variant of a trained model that fits a budget, with proof.",
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode=None,
)

app.add_typer(cache_app, name="cache", short_help="Show or clear what runs share: builds and scores.")

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The YAML file that says model, data, metric and budget.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
MODELS = "an ONNX file, a .pt2 file, or model.py:build with --weights"
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Weights of a model given as code: .safetensors, .pt or .pth."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
# main() looks for it before anything is parsed; it is declared so that it is accepted and documented.
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"autopilot {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(epilog=EPILOG, short_help="Search the best variant in budget; resumes by itself.")
def run(
    spec: Spec,
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many variants to try.")] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="When to stop searching: 90s, 10m, 1h30m.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where results go; default: runs/NAME.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="AUTOPILOT_STORAGE",
            help="A database that several runs share to work on one study: postgresql://USER@HOST/DATABASE.",
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Start anew where a run could go on, and remove its result; builds and scores may be the cache's.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Search the best variant in budget, verify it, log it; resumes by itself where it was interrupted."""
    from autopilot.plugins import vocabulary
    from autopilot.spec import load_spec

    timeout_s = _duration("--timeout", timeout)
    problem = load_spec(spec, vocabulary()).searching(trials=trials, timeout_s=timeout_s, storage=storage or None)
    folder = out if out is not None else Path("runs") / problem.name
    with watching(quiet) as observer:
        from autopilot.search import run_study

        result = run_study(problem, folder, fresh=fresh, observer=observer)
    if as_json:
        print_text(result.text())
    else:
        from autopilot.display import render_result

        print_table(render_result(result.to_json(), folder))
    return result.exit_code


@app.command(epilog=EPILOG, short_help="Measure one model against a budget: a gate for CI.")
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODELS}, or a bundle such as runs/NAME/best.")],
    spec: Spec,
    weights: Weights = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="FILE", help="Write all raw readings to FILE.npz.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Measure one model against the budget of SPEC, without a search: a gate for CI."""
    from autopilot.plugins import vocabulary
    from autopilot.spec import load_spec
    from autopilot.spec.given_model import given_model

    given = given_model(model, weights, order="autopilot check MODEL SPEC")
    problem = load_spec(spec, vocabulary())
    with watching(quiet) as observer:
        from autopilot.search import check_model

        result = check_model(given, problem, observer=observer, samples=samples)
    if as_json:
        print_json(result.to_json())
    else:
        from autopilot.display import render_check

        print_table(render_check(result.to_json()))
    return result.exit_code


@app.command(short_help="Write a commented starter spec for a model.")
def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"The model to optimize: {MODELS}.")],
    weights: Weights = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Validation samples: .npz or .parquet.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="SPEC", help="The file to write.")] = Path(
        "spec.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    debug: Debug = False,
) -> int:
    """Look at a model's inputs (and the data) and write a commented starter spec."""
    from autopilot.init import REFUSED, write_starter
    from autopilot.spec.given_model import given_model

    given = given_model(model, weights, order="autopilot init MODEL")
    remarks = write_starter(given, data, output, force=force)
    for remark in remarks:
        typer.echo(f"note: {remark}", err=True)
    first = "mend the data, then " if any(remark.startswith(REFUSED) for remark in remarks) else ""
    typer.echo(f"wrote {output}; next: {first}autopilot run {output}")
    return 0


@app.command(short_help="Show what this machine can run and measure.")
def doctor(as_json: AsJson = False, debug: Debug = False) -> int:
    """Show what this machine can run and measure, and how noisy it is."""
    from autopilot.doctor import examine, render

    report = examine()
    if as_json:
        print_json(report)
    else:
        print_table(render(report))
    return 0


@app.command(epilog=EPILOG, short_help="Show a finished run's result again.")
def show(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_RUN", help="A run's folder, or an MLflow run id.")],
    samples: Annotated[
        bool, typer.Option("--samples", help="Recompute all from the raw readings; exit code 1 where it differs.")
    ] = False,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="With --samples: all figures of trial N.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="With --samples --trial: its requests, a line each.")
    ] = None,
    budget: Annotated[
        Path | None, typer.Option("--budget", metavar="FILE", help="Judge the recorded trials by another budget.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Show a finished run's result again, as a table; the exit code is the result's.

    With --samples: every figure and verdict is computed again from the raw readings, and the exit code
    is 0 where all agree with what was stored, 1 where one differs.
    """
    if samples:
        from autopilot.cli.samples import show_samples

        return show_samples(Path(source), trial, csv, as_json=as_json)
    if trial is not None or csv is not None:
        raise BadInput("--trial and --csv need --samples.", "Write: autopilot show DIR --samples --trial N.")
    from autopilot.display import render_result

    result, folder = find_result(source)
    if budget is not None:
        from autopilot.search.rejudge import read_budget, rejudge

        found = rejudge(result, read_budget(budget, result), folder)
        print_json(found.to_json()) if as_json else print_text(found.text)
        return found.exit_code
    if as_json:
        print_text(result.text())
    else:
        print_table(render_result(result.to_json(), folder))
    return result.exit_code


@app.command(short_help="Write a finished run's result as one HTML page.")
def report(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_RUN", help="A run's folder, or an MLflow run id.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The page; default: report.html in the run's folder."),
    ] = None,
    debug: Debug = False,
) -> int:
    """Write a finished run's result as one self-contained HTML page, which loads nothing from anywhere."""
    from autopilot.search.reporting import report_run

    result, folder = find_result(source)
    page = report_run(result, folder, output or (folder or Path()) / "report.html")
    typer.echo(f"wrote {page}")
    return 0


@app.command(short_help="Serve the MLflow UI over this folder's runs.")
def ui(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="With --optuna: a finished run's folder; default: the newest in runs/."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on 127.0.0.1.")] = 5000,
    optuna: Annotated[
        bool, typer.Option("--optuna", help="Serve optuna-dashboard over one run's trials instead (extra: dashboard).")
    ] = False,
    debug: Debug = False,
) -> int:
    """Serve the MLflow UI over this folder's runs on 127.0.0.1; Ctrl-C ends it."""

    def announce(text: str) -> None:
        typer.echo(f"{text}; Ctrl-C ends it", err=True)

    if optuna:
        from autopilot.cli.dashboard import start_dashboard

        return start_dashboard(source, port, announce=announce)
    if source is not None:
        raise BadInput("DIR needs --optuna: MLflow's UI shows all runs.", "Write: autopilot ui --optuna DIR.")
    from autopilot.tracking import start_ui

    return start_ui(port=port, announce=announce)


def _duration(option: str, text: str | None) -> float | None:
    from autopilot.spec import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise BadInput(f"{option}: {exc}.") from exc

"""``autopilot cache``: what is kept between runs, and how to get rid of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from autopilot.cli.output import print_json, print_table, print_text
from autopilot.errors import AutopilotError, BadInput

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]

cache_app = typer.Typer(rich_markup_mode=None)


@cache_app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    each: Annotated[bool, typer.Option("--list", help="Also show every entry, the one used last first.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Show the builds and scores that runs share, and what they take.

    AUTOPILOT_CACHE_DIR names another folder, AUTOPILOT_CACHE_SIZE (10GB) how large it may grow.
    """
    if context.invoked_subcommand is not None:
        if each or as_json:
            raise BadInput("options of a command stand behind its name.", "Write: autopilot cache clear --json.")
        return 0
    from autopilot.cache.summary import Summary
    from autopilot.display.cache import render_cache

    found = Summary.read().to_json(each=each)
    if as_json:
        print_json(found)
    else:
        print_table(render_cache(found))
    return 0


@cache_app.command(short_help="Remove what no run uses.")
def clear(
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what wasn't used for so long: 30d, 12h.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Remove what is in the cache, without asking; what is in use now stays, and is named."""
    from autopilot.cache import cache_folder, check_folder
    from autopilot.cache import clear as remove
    from autopilot.cache.eviction import Freed
    from autopilot.display.cache import cleared_text

    older_than_s = _age_s(older_than)
    folder = cache_folder()
    freed = remove(folder, older_than_s) if check_folder(folder) else Freed()
    if freed.busy:
        raise AutopilotError(f"another process is tidying {folder} up, and didn't end.", "Try again.")
    if as_json:
        print_json({"folder": str(folder), **asdict(freed)})
    else:
        print_text(cleared_text(asdict(freed)))
    return 0


def _age_s(text: str | None) -> float:
    from autopilot.spec import parse_duration

    if text is None:
        return 0.0
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise BadInput(f"--older-than: {exc}.") from exc

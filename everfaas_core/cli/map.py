"""`everfaas map`: one function over many inputs, with results as they come; can be stopped and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from everfaas_core.cli import EXIT_INTERRUPTED, EXIT_TASK_CANCELLED, EXIT_TASK_FAILED
from everfaas_core.cli.calling import json_option, url_options
from everfaas_core.cli.map_inputs import FORMS, BadInput, Inputs, Survey
from everfaas_core.cli.run import call_options, prepare
from everfaas_core.cli.targets import find_function

RESUME: Final = "--resume"


@click.command("map")
@click.argument("target", metavar="FILE.py::FUNCTION")
@click.option("--over", metavar="FILE", required=True, help="The inputs, one a line; - is stdin.")
@click.option("--jsonl", "form", flag_value="jsonl", help="Each line is a JSON value.")
@click.option("--csv", "form", flag_value="csv", help="The first line has names, each further one their values.")
@click.option("--star", is_flag=True, help="Spread each input: a list has the arguments, a dict the keyword arguments.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the results; stdout otherwise.")
@click.option(RESUME, is_flag=True, help="Go on with --out FILE: run only what has no result there.")
@call_options
@json_option("At the end, print one JSON object with the counts. With --out only.")
@url_options
def command(
    target: str,
    over: str,
    form: str | None,
    star: bool,
    out: Path | None,
    resume: bool,
    as_json: bool,
    url: str | None,
    config: str | None,
    **options: Any,
) -> int:
    """Run a function once for each input, on the fleet, and write the results as they come.

    An input is a line: a Python literal if it can be read so (3, [1,2]), else a text; it is the one argument. A result
    is a line of JSON: index (the input's number, from 0), task_id, status, and value (or repr, where JSON has no word
    for it), or error and traceback.

    Ctrl-C cancels what is left; --resume goes on, and runs nothing again that has a result. Exit status 5: some failed.
    """
    if form == "csv" and star:
        raise click.UsageError("--csv has names for its values already: leave --star out.")
    if out is None and (resume or as_json):
        raise click.UsageError(f"{RESUME if resume else '--json'} needs the results in a file: --out FILE.")
    function = find_function(target)
    inputs = Inputs(over, form or FORMS[0], star=star)
    survey = inputs.survey()
    from everfaas_core.cli.map_journal import Journal
    from everfaas_core.client.client import Client
    from everfaas_core.config.layers import load_url

    with Client(load_url(url, config)[0]) as client:
        function_id, fields = prepare(client, function, options)
        with contextlib.closing(Journal(out, _about(target, inputs, survey), resume=resume)) as journal:
            work = Work(client, function_id, fields, journal, target.rpartition("::")[2], out)
            return work.run(inputs, survey.total if survey else None, as_json)


def _about(target: str, inputs: Inputs, survey: Survey | None) -> dict[str, Any]:
    """Return what a file of results belongs to."""
    place, _, name = target.rpartition("::")
    return {
        "function": f"{Path(place).name}::{name}",
        "form": inputs.form + (", spread" if inputs.star else ""),
        "inputs": survey.digest if survey else None,
    }


class Work:
    """One run of a map, with its bar and what is said about it."""

    def __init__(
        self, client: Any, function_id: str, fields: dict[str, Any], journal: Any, name: str, out: Path | None
    ) -> None:
        from everfaas_core.cli.interrupts import Interrupts
        from everfaas_core.cli.map_flow import Flow

        self._interrupts = Interrupts()
        self._flow = Flow(client.api, function_id, fields, journal, self._emit, self._interrupts)
        self._journal = journal
        self._name = name
        self._out = out
        self._bar: Any = None
        self._deserted = False
        self._began = time.monotonic()

    def run(self, inputs: Inputs, total: int | None, as_json: bool) -> int:
        """Do it; return the exit status. Raises ApiFailed, BadInput, OutTrouble; what was done is said before."""
        from everfaas_core.cli.map_bar import Bar

        counts = self._flow.counts
        self._bar = Bar(self._name, counts, total)
        stopped: BaseException | None = None
        try:
            with self._interrupts, self._bar:
                self._bar.say(f"group {self._flow.group}: everfaas ls --group {self._flow.group}")
                try:
                    self._flow.run(iter(inputs))
                except (KeyboardInterrupt, BrokenPipeError, BadInput) as why:
                    stopped = why
                    self._stop()
        except KeyboardInterrupt:
            self._leave(total)
        except Exception:
            self._say_what_was_done(total, stopped=True)
            raise
        self._say_what_was_done(total, stopped=stopped is not None)
        if as_json:
            click.echo(json.dumps(self._summary(total)))
        if isinstance(stopped, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        if stopped is not None:
            raise stopped
        if counts.failed or self._journal.failed:
            return EXIT_TASK_FAILED
        return EXIT_TASK_CANCELLED if counts.cancelled else 0

    def _stop(self) -> None:
        self._bar.say("\nstopping: cancelling what is left (Ctrl-C again: leave at once)")
        self._flow.stop()

    def _emit(self, lines: Sequence[dict[str, Any]]) -> None:
        if self._out is not None or not lines or self._deserted:
            return
        try:
            self._bar.put("".join(json.dumps(line) + "\n" for line in lines))
        except BrokenPipeError:  # whoever read them has left: nobody wants the rest
            self._deserted = True
            raise

    def _summary(self, total: int | None) -> dict[str, Any]:
        counts = self._flow.counts
        return {
            "group": self._flow.group,
            "inputs": total,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "earlier": counts.earlier,
            "earlier_failed": self._journal.failed,
            "seconds": round(time.monotonic() - self._began, 3),
            "out": str(self._out) if self._out else None,
        }

    def _say_what_was_done(self, total: int | None, *, stopped: bool) -> None:
        counts = self._flow.counts
        took_s = time.monotonic() - self._began
        words = [f"{counts.completed:,} completed", f"{counts.failed:,} failed"]
        if counts.cancelled:
            words.append(f"{counts.cancelled:,} cancelled")
        if counts.earlier:
            words.append(f"{counts.earlier:,} had a result before")
        if stopped and total is not None:
            left = total - counts.earlier - counts.ended - counts.cancelled - counts.submitted
            words.append(f"{left:,} not submitted")
        if stopped and counts.submitted:
            words.append(f"{counts.submitted:,} submitted, their end not heard of")
        from everfaas_core.cli.shown import duration

        rate = f", {counts.ended / took_s:,.0f}/s" if took_s > 0 and counts.ended else ""
        place = f"; results: {self._out}" if self._out else ""
        click.echo(f"{', '.join(words)} in {duration(took_s)}{rate}{place}", err=True)
        if stopped or counts.cancelled:
            click.echo(self._how_to_go_on(), err=True)

    def _how_to_go_on(self) -> str:
        if self._out is None:
            return "Hint: with --out FILE, a map can be resumed"
        words = [word for word in sys.argv[1:] if word != RESUME]
        if words[:1] != ["map"]:  # called from Python
            return "Hint: go on with the same command and --resume"
        return f"go on with: everfaas {shlex.join([*words, RESUME])}"

    def _leave(self, total: int | None) -> None:
        """Leave at once, whatever the threads are doing. What was written is whole."""
        self._say_what_was_done(total, stopped=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)

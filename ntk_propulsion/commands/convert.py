"""python -m ntk_propulsion.convert: a tuning from one form of checkpoint into another."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import click
from rich.markup import escape

from ntk_propulsion.commands.command_line import Interrupted, Output
from ntk_propulsion.commands.limits import Limits
from ntk_propulsion.commands.options import command
from ntk_propulsion.conversion import FORMS, convert_checkpoint
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class Conversion:
    """Into what a checkpoint is converted."""

    to: str = option(meaning="; ".join(f"{n}: {form.words}" for n, form in FORMS.items()) + ".")
    out: str = option(meaning="File (adapter) or folder (all others) to write.")
    base: str | None = option(
        None, "The model it was trained from: minilm, a Hugging Face folder, or a hub id."
    )
    degree: int | None = option(None, more="For checkpoints that do not record it.")
    overwrite: bool = option(False)


@command(conversion=Conversion, limits=Limits, output=Output)
@click.argument("source")
def convert(source: str, conversion: Conversion, limits: Limits, output: Output) -> None:
    """Convert the Propulsion checkpoint SOURCE into another form.

    SOURCE is an adapter or a wrapped model's state dict of this package, a checkpoint of the
    public code (wrapped, or in-model RoBERTa and DeBERTa), or the folder of a PEFT IA3 adapter.
    What the form cannot express is refused by name, and nothing is written.
    """
    try:
        with limits.budget():
            done = convert_checkpoint(
                source,
                conversion.to,
                out=conversion.out,
                base=conversion.base,
                degree=conversion.degree,
                overwrite=conversion.overwrite,
            )
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command does it again") from stop
    console = output.console()
    power = "unknown degree" if done.degree is None else f"degree {done.degree}"
    console.print(escape(f"{done.source}: {done.layers} scaled layers, {power}"), soft_wrap=True)
    for note in done.notes:
        console.print(escape(f"note: {note}"), soft_wrap=True)
    found = {"form": conversion.to, **asdict(done), "out": str(done.out)}
    output.end(done.out, json.dumps(found, indent=1))

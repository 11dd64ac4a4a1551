"""python -m ntk_propulsion.convert: a tuning from one form of checkpoint into another."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.markup import escape

from ntk_propulsion.commands.command_line import (
    LOOK,
    Command,
    Output,
    shared,
    with_output,
)
from ntk_propulsion.conversion import FORMS, convert_checkpoint


@click.command(cls=Command, context_settings=LOOK)
@click.argument("source")
@click.option(
    "--to",
    "form",
    required=True,
    help="; ".join(f"{name}: {words}" for name, words in FORMS.items()) + ".",
)
@click.option("--base", help="The model it was trained from: minilm, or a Hugging Face folder.")
@shared("degree", "For checkpoints that do not record it.", type=int)
@click.option("--out", required=True, help="File (adapter) or folder (all others) to write.")
@shared("overwrite", is_flag=True)
@with_output
def convert(
    source: str,
    form: str,
    base: str | None,
    degree: int | None,
    out: str,
    overwrite: bool,
    output: Output,
) -> None:
    """Convert the Propulsion checkpoint SOURCE into another form.

    SOURCE is an adapter or a wrapped model's state dict of this package, a checkpoint of the
    public code (wrapped, or in-model RoBERTa and DeBERTa), or the folder of a PEFT IA3 adapter.
    What the form cannot express is refused by name, and nothing is written.
    """
    done = convert_checkpoint(source, form, out=out, base=base, degree=degree, overwrite=overwrite)
    console = output.console()
    power = "unknown degree" if done.degree is None else f"degree {done.degree}"
    console.print(escape(f"{done.source}: {done.layers} scaled layers, {power}"), soft_wrap=True)
    for note in done.notes:
        console.print(escape(f"note: {note}"), soft_wrap=True)
    found = {"form": form, **asdict(done), "out": str(done.out)}
    output.end(done.out, json.dumps(found, indent=1, ensure_ascii=False))

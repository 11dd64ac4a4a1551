"""python -m ntk_propulsion: every command by one name."""

from __future__ import annotations

import importlib

import click

from ntk_propulsion.commands.options import LOOK
from ntk_propulsion.errors import unknown

COMMANDS = {
    "compare": "Compare the empirical NTK of full fine-tuning with that of Propulsion.",
    "audit": "Audit checkpoints that are already trained.",
    "report": "Draw page and figures of a finished run anew.",
    "convert": "Convert the Propulsion checkpoint SOURCE into another form.",
}
"""What each command does, as its own help begins: known before it is imported."""


class Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import a command.

        Raises:
            InputError: There is none of that name.
        """
        if cmd_name not in COMMANDS:
            raise unknown("command", cmd_name, COMMANDS)
        return getattr(importlib.import_module(f"ntk_propulsion.commands.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings=LOOK,
    invoke_without_command=True,
    epilog="\b\nEach command has a --help of its own.\n"
    "The studies of the paper's claims: python -m analysis --help",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Exact kernels of full fine-tuning beside those of Propulsion: experiments and audits."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())

"""python -m ntk_propulsion.convert; the command is in :mod:`ntk_propulsion.commands.convert`."""

import sys

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.convert import convert

if __name__ == "__main__":
    sys.exit(run_command(convert))

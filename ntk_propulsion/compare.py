"""python -m ntk_propulsion.compare; the command is in :mod:`ntk_propulsion.commands.compare`."""

import sys

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.compare import compare

if __name__ == "__main__":
    sys.exit(run_command(compare))

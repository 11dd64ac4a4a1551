"""python -m ntk_propulsion; the commands are in :mod:`ntk_propulsion.commands`."""

import sys

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.main import main

if __name__ == "__main__":
    sys.exit(run_command(main))

"""python -m ntk_propulsion.audit; the command is in :mod:`ntk_propulsion.commands.audit`."""

import sys

from ntk_propulsion.commands.audit import audit
from ntk_propulsion.commands.command_line import run_command

if __name__ == "__main__":
    sys.exit(run_command(audit))

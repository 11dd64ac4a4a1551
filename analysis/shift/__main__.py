"""python -m analysis.shift."""

import sys

from analysis.framework.command import main
from analysis.shift.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

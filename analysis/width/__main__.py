"""python -m analysis.width."""

import sys

from analysis.framework.command import main
from analysis.width.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

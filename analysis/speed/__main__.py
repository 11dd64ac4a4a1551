"""python -m analysis.speed."""

import sys

from analysis.framework.command import main
from analysis.speed.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

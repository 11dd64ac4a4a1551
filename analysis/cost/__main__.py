"""python -m analysis.cost."""

import sys

from analysis.cost.study import STUDY
from analysis.framework.command import main

if __name__ == "__main__":
    sys.exit(main(STUDY))

"""python -m analysis.convergence."""

import sys

from analysis.convergence.study import STUDY
from analysis.framework.command import main

if __name__ == "__main__":
    sys.exit(main(STUDY))

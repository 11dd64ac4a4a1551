"""python -m analysis.bounds."""

import sys

from analysis.bounds.study import STUDY
from analysis.framework.command import main

if __name__ == "__main__":
    sys.exit(main(STUDY))

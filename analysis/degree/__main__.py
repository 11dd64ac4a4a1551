"""python -m analysis.degree."""

import sys

from analysis.degree.study import STUDY
from analysis.framework.command import main

if __name__ == "__main__":
    sys.exit(main(STUDY))

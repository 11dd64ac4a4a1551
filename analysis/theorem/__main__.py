"""python -m analysis.theorem."""

import sys

from analysis.framework.command import main
from analysis.theorem.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

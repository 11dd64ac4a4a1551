"""python -m analysis.prediction."""

import sys

from analysis.framework.command import main
from analysis.prediction.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

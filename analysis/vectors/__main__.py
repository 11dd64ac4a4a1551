"""python -m analysis.vectors."""

import sys

from analysis.framework.command import main
from analysis.vectors.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))

"""python -m analysis.fewshot."""

import sys

from analysis.fewshot.study import STUDY
from analysis.framework.command import main

if __name__ == "__main__":
    sys.exit(main(STUDY))

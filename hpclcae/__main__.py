"""``python -m hpclcae`` is the same as the console script ``hpclcae``."""
import sys

from hpclcae.cli import main

if __name__ == "__main__":
    sys.exit(main())

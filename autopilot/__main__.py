"""``python -m autopilot`` is the command ``autopilot``."""

import sys

from autopilot.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m autopilot.cli``: the command, where it is not installed."""

import sys

from autopilot.cli import main

sys.exit(main())

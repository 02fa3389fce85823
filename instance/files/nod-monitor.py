#!/usr/bin/env python3
"""Starts the activity monitor, whose modules lie in the folder nod_monitor beside this file.

Usage: nod-monitor.py SETTINGS, a JSON file with "table" and "region"; or nod-monitor.py --measure SECONDS, which
looks at this machine for so long and prints what that cost.
"""

import json
import sys
from pathlib import Path

# python3 -I looks nowhere but in its own library.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from nod_monitor import monitor  # type: ignore[import-not-found]

if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        sys.stdout.write(json.dumps(monitor.measure(float(sys.argv[2]))) + "\n")
    else:
        monitor.main(Path(sys.argv[1]))

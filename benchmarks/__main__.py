"""`python -m benchmarks [PART …]`: prints every figure with how it was measured. Nothing here ran on AWS."""

from __future__ import annotations

import argparse
import logging
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import cold, idle, launch, sweep, wake

PARTS = {"launch": launch.main, "wake": wake.main, "cold": cold.main, "idle": idle.main, "sweep": sweep.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(PARTS)}; all without one")
    parser.add_argument("--launches", type=int, default=4, help="launches, one after the other")
    parser.add_argument("--wakes", type=int, default=4, help="starts, one after the other")
    parser.add_argument("--runs", type=int, default=20, help="alternating runs of each function and its bare script")
    parser.add_argument("--seeds", type=int, default=10, help="variations of each kind of day")
    parser.add_argument("--stops", type=int, nargs="+", default=[10_000, 30_000], help="how many stops are drained")
    arguments = parser.parse_args()
    # What moto's interpreter says of every path that it does not find is no figure, nor is what the functions log.
    quiet = logging.StreamHandler()
    quiet.setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.CRITICAL, handlers=[quiet])
    memory = int(next(line for line in Path("/proc/meminfo").read_text().splitlines()).split()[1]) // 1024
    print(
        f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {os.cpu_count()} processors, {memory} MiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}; on the local cloud, not on AWS"
    )
    unknown = set(arguments.parts) - PARTS.keys()
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}, only {' and '.join(PARTS)}")
    for part in arguments.parts or PARTS:
        print()
        PARTS[part](arguments)


if __name__ == "__main__":
    main()

"""Command line: `python -m oracles.arm64_sequential --cases 500000 --seed 1`."""

import argparse
import sys
from pathlib import Path

from .campaign import run

parser = argparse.ArgumentParser("python -m oracles.arm64_sequential", description=__doc__)
parser.add_argument("--cases", type=int, default=100_000)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--failures", type=Path, default=Path("oracle-failures.jsonl"), help="for unexplained cases")
asked = parser.parse_args()
sys.exit(run(asked.cases, asked.seed, asked.failures))

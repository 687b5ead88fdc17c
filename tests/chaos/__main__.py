"""`python -m tests.chaos --kills 30 --seed 1`: kill, judge, and print the table; exit code 1 where a row is wrong."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.harness import epochs_for, planned_kills, run_under
from tests.chaos.verdict import largest_difference
from tests.chaos.victims import KINDS
from tests.tiny.models import make_model


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--losses", action="store_true", help="compare the losses with those of an undisturbed run")
    args = parser.parse_args()
    # Ended from outside it takes the run that it has started with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = Path(name)
        student, epochs = make_model(directory / "student"), epochs_for(args.kills)
        undisturbed = run_under([], directory / "undisturbed", student, epochs) if args.losses else None
        kills = planned_kills(args.kills, args.seed, args.kinds)
        outcome = run_under(kills, directory / "killed", student, epochs, lambda death: print(death, file=sys.stderr))
    print(f"{args.kills} kills, seed {args.seed}\n\n{outcome.table(undisturbed)}")
    equal = undisturbed is None or largest_difference(outcome.metrics, undisturbed.metrics) <= 1e-6
    return 0 if outcome.verdict.clean and equal else 1


if __name__ == "__main__":
    sys.exit(main())

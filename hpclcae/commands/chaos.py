"""The command ``hpclcae chaos``: failures on purpose in a surviving job, and checks afterwards."""
import argparse
import json
import time
from pathlib import Path

from hpclcae.commands import replay
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.checkpoint.event_log import logs
from hpclcae.survive.chaos import KINDS, episodes, verify
from hpclcae.survive.supervisor import CONTACT
from hpclcae.utils.errors import InputError

END_SECONDS = 3600  # that the job may go on for after the last failure


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path,
                        help="run folder of a job that hpclcae launch --survive has started; with "
                        "parallel.log_events = true every update is checked afterwards")
    parser.add_argument("--mtbf", type=real(0, 1e9, above=True), metavar="SECONDS", default=30.0,
                        help="mean time between failures, exponential (default 30)")
    parser.add_argument("--kinds", metavar="KIND,...", default=",".join(KINDS),
                        help="kill and stop a rank of a replica for good, slow it for a second, "
                        f"kill a server (default: {','.join(KINDS)})")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the times and targets")
    parser.add_argument("--episodes", type=positive, metavar="N", default=10 ** 6,
                        help="at most (default: until the job ends)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    kinds = args.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--kinds: {unknown[0]!r} is none of {', '.join(KINDS)}")
    token = ""
    if (args.run / CONTACT).exists():
        token = json.loads((args.run / CONTACT).read_text())["token"]
    found = episodes(args.run, args.mtbf, kinds, args.seed, args.episodes,
                     lambda line: print(line, flush=True))
    end, ended = time.monotonic() + END_SECONDS, 0
    while ended < 30:  # a job that begins again is away for a moment
        ended = 0 if (args.run / CONTACT).exists() else ended + 1
        if time.monotonic() > end:
            raise InputError(f"the job in {args.run} does not come to an end")
        time.sleep(0.2)
    for line in verify(args.run, token):
        print(line)
    if logs(args.run):
        replay.run(argparse.Namespace(run=args.run, start=None, images=None))
    print(f"{len(found)} episodes were survived, or the job ended as it should")
    return 0

"""Asking a surviving job that runs: who is there, and that a replica joins or leaves."""
import json
import select
from pathlib import Path
from typing import Any

from hpclcae.survive.supervisor import CONTACT
from hpclcae.survive.wire import Lost, Peer, text_in
from hpclcae.utils.errors import InputError

ANSWER_SECONDS = 30


def ask(run: Path, **question: Any) -> dict[str, Any]:
    """What the supervisor of a run answers.

    Raises
    ------
    InputError
        No surviving job runs there, or the answer is no.
    """
    try:
        contact = json.loads((run / CONTACT).read_text())
        peer = Peer.to((contact["address"][0], contact["address"][1]))
    except (OSError, Lost, ValueError) as error:
        raise InputError(f"no surviving job runs in {run}: start one with hpclcae launch --survive "
                         f"... --out {run}") from error
    try:
        peer.say(token=contact["token"], role="tool")
        peer.say(**question)
        while select.select([peer.socket], [], [], ANSWER_SECONDS)[0]:
            for _, rest in peer.receive():
                told = text_in(rest)
                if told["kind"] == "error":
                    raise InputError(told["text"])
                return told
        raise InputError(f"the job in {run} does not answer")
    except Lost as error:
        raise InputError(f"the job in {run} has just ended") from error
    finally:
        peer.close()

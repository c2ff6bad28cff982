"""What a process of a surviving job is told about itself: its part, in one variable."""
import dataclasses
import json
import os
from collections.abc import Mapping

VARIABLE = "HPCLCAE_PART"
SILENCE_SECONDS = 30.0  # of the supervisor's machine, after which its processes end


@dataclasses.dataclass(frozen=True)
class Part:
    """A server, or all ranks of one life of a replica.

    address : (str, int)
        Where the supervisor listens.
    token : str
        What its connections begin with: strangers do not know it.
    kind : str
        "server" or "replica".
    number, life : int
        Which one; how many processes were it before.
    silence : float
        Seconds without an answer of the supervisor's machine after which the process ends.
    """
    address: tuple[str, int]
    token: str
    kind: str
    number: int
    life: int
    silence: float = SILENCE_SECONDS

    def variables(self) -> dict[str, str]:
        """For the environment of its processes."""
        return {VARIABLE: json.dumps(dataclasses.asdict(self))}

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str] = os.environ) -> "Part | None":
        """None: this process belongs to no surviving job."""
        if VARIABLE not in environment:
            return None
        told = json.loads(environment[VARIABLE])
        return cls(**told | {"address": tuple(told["address"])})

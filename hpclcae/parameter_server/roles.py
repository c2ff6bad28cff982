"""Who does what in a job: parameter servers, and the blocks of every replica.

Roles follow from the configuration and the nodes, so every rank finds its own.
"""
from collections.abc import Sequence
from dataclasses import dataclass

from hpclcae.utils.errors import InputError


@dataclass(frozen=True)
class Role:
    """What one rank does: it is server number `server`, or block `block` of replica `replica`."""
    server: int | None = None
    replica: int = 0
    block: int = 0

    def __str__(self) -> str:
        if self.server is not None:
            return f"server {self.server}"
        return f"replica {self.replica} block {self.block}"


def blocks_of(ranks: int, servers: int, replicas: int, blocks: int | None = None) -> int:
    """Blocks of every replica in a job of `ranks` processes; `blocks`, if the grid is fixed, must
    be what comes out.

    Raises
    ------
    InputError
        Names the sizes that fit.
    """
    found, rest = divmod(ranks - servers, replicas)
    if found < 1 or rest or blocks not in (None, found):
        sizes = [servers + replicas * b for b in ([blocks] if blocks else range(1, 5))]
        raise InputError(f"{ranks} processes were launched; {servers} servers (parallel.servers) "
                         f"and {replicas} replicas (parallel.replicas) of "
                         f"{blocks or 'any number of'} blocks (parallel.grid) need "
                         f"{', '.join(map(str, sizes))}{'' if blocks else ', ...'}: start as many "
                         "(hpclcae launch does), or change the configuration")
    return found


def roles(nodes: Sequence[str], servers: int, replicas: int, blocks: int,
          placement: str = "beside") -> list[Role]:
    """The role of every rank.

    Workers stand in the order of ranks, a replica's blocks together, so that neighbours exchange
    halos within a node where they can. Servers are spread evenly over the nodes ("beside": the last
    ranks of each), or take the last nodes whole ("apart").

    Parameters
    ----------
    nodes : sequence of str
        Name of the node of every rank; servers + replicas * blocks of them.

    Raises
    ------
    InputError
        The numbers do not fit, or "apart" would put a server beside a worker.
    """
    blocks_of(len(nodes), servers, replicas, blocks)
    members: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        members.setdefault(node, []).append(rank)
    if placement == "apart":
        serving = [rank for ranks in list(members.values())
                   for rank in ranks][len(nodes) - servers:]
        shared = {nodes[r] for r in serving} & {nodes[r] for r in range(len(nodes))
                                                if r not in serving}
        if shared:
            raise InputError(f"parallel.placement = 'apart': node {sorted(shared)[0]} would have "
                             f"servers and workers; give whole nodes to the {servers} servers, or "
                             "use 'beside'")
    else:
        spare = {node: list(ranks) for node, ranks in members.items()}
        serving = []
        while len(serving) < servers:  # one to each node in turn
            for ranks in spare.values():
                if ranks and len(serving) < servers:
                    serving.append(ranks.pop())
    chosen = {rank: Role(server=number) for number, rank in enumerate(serving)}
    workers = [rank for ranks in members.values() for rank in ranks if rank not in chosen]
    chosen |= {rank: Role(replica=n // blocks, block=n % blocks) for n, rank in enumerate(workers)}
    return [chosen[rank] for rank in range(len(nodes))]


def joint_step(cursors: Sequence[int]) -> int:
    """The step that stands for a run whose replicas have made these: the mean, rounded down.

    It grows with every few steps that any replica makes, and is the last step when all have made
    theirs.
    """
    return sum(cursors) // len(cursors)

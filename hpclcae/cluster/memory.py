"""What ranks hold: parameters, activations, what is on its way, and a copy while it is saved.

tests/system/test_plan_memory.py compares with the peak of real ranks.
"""
from hpclcae.cluster.ranks import grid_for
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.model.optimizers import SLOTS
from hpclcae.model.preprocess import PORTION
from hpclcae.parameter_server.chunks import CHUNK_BYTES
from hpclcae.parameter_server.store import compensates, owned_slots

#: Of a node's memory; the system and its file cache keep the rest.
USABLE = 0.9
#: Bytes of a rank without arrays: Python, libraries, MPI (tests/system/test_plan_memory.py
#: measures).
BARE_RANK = 130e6
#: Arrays of the size of a minibatch's scores that are there at the same time.
SCORES = 6


def parameter_bytes(layout: Layout, block: int) -> int:
    """Parameters of one block, in the kernel's tiles (which hold a few zeros)."""
    return layout.block(block).elements * layout.dtype.itemsize


def activation_bytes(layout: Layout, block: int) -> int:
    """Arrays of one block that live from the forward to the backward pass.

    And scratch as large as one stage, and the prepared images of coming steps (utils/ahead.py).
    """
    first = layout.block(block).plan.stages[0].x.held.size * layout.geometry[0].input[2]
    stages = [first * (4 if layout.grid.size > 1 else 1)]
    for plan, shape in zip(layout.block(block).plan.stages, layout.geometry):
        maps_in, maps = shape.input[2], shape.filtered[2]
        stages.append(2 * plan.x.held.size * maps_in
                      + (plan.z.held.size + plan.h.held.size + 2 * plan.g.held.size) * maps)
    numbers = sum(stages) + max(stages)
    if layout.parts:  # features and their gradient; scores, and what the objective makes of them
        features = layout.features(block).held.size * layout.geometry[-1].output[2]
        numbers += 3 * features + SCORES * layout.config.classifier.classes
    return numbers * layout.config.train.batch * layout.dtype.itemsize


def worker_bytes(layout: Layout, served: bool, saving: bool = True) -> float:
    """The most that a rank with a block holds.

    That is while it trains, or when it fits the whitening at the start. `saving`: with the copy
    that is made of what is saved, which it does without where memory is scarce (ShardWriter).
    """
    config, grid = layout.config, layout.grid
    # it has halos on all sides; the first block may own more
    centre = grid.cols * (grid.rows // 2) + grid.cols // 2
    slots = len(SLOTS[config.update.rule])
    # Without servers: parameters and the optimizer's slots, and a copy while they are saved. With
    # servers: the parameters, those of the next step that arrive, and gradients on their way.
    copies = 3 + slots * config.parallel.is_local if served else (1 + saving) * (1 + slots)
    training = max(copies * parameter_bytes(layout, block) + activation_bytes(layout, block)
                   for block in (0, centre))
    images = config.preprocess.whitening_images if config.preprocess.whitening else 0
    fitting = (images + 8 * PORTION) * config.data.size ** 2 * config.data.channels
    return BARE_RANK + max(training, fitting)


def server_bytes(layout: Layout, servers: int, replicas: int, saving: bool = True) -> float:
    """What a server holds.

    That is its share of the parameters with the update rule's vectors, a copy while it saves (see
    `worker_bytes`), and what is on its way from each replica. All blocks are counted like the
    first: about right, and much faster than one by one.
    """
    if not servers:
        return 0.0
    config = layout.config
    share = parameter_bytes(layout, 0) * layout.grid.size / servers
    # Gradients lie in slots of the mailbox; synchronous ones wait for those of the others.
    mail = min(share, config.parallel.slots * CHUNK_BYTES) * (1 + compensates(config))
    waiting = share * (config.parallel.consistency == "synchronous")
    return (BARE_RANK + (1 + saving) * share * (1 + len(owned_slots(config)))
            + replicas * (mail + waiting))


def job_bytes(config: Config, ranks: int) -> float:
    """What a job of so many processes needs, if all are on one node.

    Copies are counted where they are always made: at servers that answer by messages.

    Raises
    ------
    InputError
        That many do not fit the configuration.
    """
    parallel = config.parallel
    layout = Layout(config, grid_for(config, ranks))
    worker = worker_bytes(layout, bool(parallel.servers), saving=False)
    server = server_bytes(layout, parallel.servers, parallel.replicas,
                          saving=parallel.transport == "messages")
    return (ranks - parallel.servers) * worker + parallel.servers * server

"""Every exchange of a network on one block: the same program runs under MPI and in one process."""
import functools

import numpy as np

from hpclcae.geometry import network_geometry
from hpclcae.model.layout import Layout
from hpclcae.partition.halo import Exchange

IMAGES = 2


def arrays(config, plan):
    """Name, exchange plan, shape of the whole: of all arrays that a block exchanges."""
    stages = zip(config.stages, network_geometry(config), plan.stages)
    for number, (stage, shape, part) in enumerate(stages, 1):
        rows, cols, _ = shape.pooled
        lost = max(0, stage.lcn - 1) * (stage.lcn_border != "same")
        yield f"x{number}", part.x, (*shape.input, IMAGES)
        yield f"z{number}", part.z, (*shape.filtered, IMAGES)
        yield f"h{number}", part.h, (rows, cols, IMAGES)
        yield f"g{number}", part.g, (rows - lost, cols - lost, IMAGES)


@functools.lru_cache(20)
def whole(name, shape, dtype):
    """What all blocks own together of one array; every block can make it."""
    array = np.random.default_rng([ord(c) for c in name]).standard_normal(shape).astype(dtype)
    array.setflags(write=False)
    return array


def cut(array, rectangle):
    """A rectangle of an array that holds all positions."""
    return array[slice(*rectangle.rows), slice(*rectangle.cols)]


def exchange_everything(config, grid, communicator, dtype=np.float64):
    """Fill and fold every array of one block; all of a kind are under way before the first ends.

    Returns
    -------
    dict
        "fill NAME": the needed positions after a fill. "put NAME": numbers that were put on the
        needed positions; "fold NAME": the owned positions after they were folded. "sum": of all
        blocks' "put" numbers, by array.
    """
    plan = Layout(config, grid).block(communicator.rank).plan
    exchanges = {name: (Exchange(part, communicator), part, shape)
                 for name, part, shape in arrays(config, plan)}
    held, finish, results = {}, [], {}
    for name, (exchange, part, shape) in exchanges.items():
        held[name] = np.full((*part.held.shape, *shape[2:]), np.nan, dtype)
        held[name][part.own] = cut(whole(name, shape, dtype), part.owned)
        finish.append(exchange.start_fill(held[name]))
    for end in reversed(finish):
        end()
    finish.clear()
    for name, (exchange, part, _) in exchanges.items():
        results[f"fill {name}"] = held[name][part.read].copy()
        generator = np.random.default_rng([part.tag, communicator.rank])
        numbers = generator.standard_normal(results[f"fill {name}"].shape)
        results[f"put {name}"] = numbers.astype(dtype)
        held[name][...] = 0
        held[name][part.read] = results[f"put {name}"]
        finish.append(exchange.start_fold(held[name]))
    for end in reversed(finish):
        end()
    for name, (exchange, part, _) in exchanges.items():
        results[f"fold {name}"] = held[name][part.own].copy()
        exchange.close()
    results["sum"] = communicator.allreduce_sum([results[f"put {name}"].sum(dtype=np.float64)
                                                 for name in exchanges])
    return results

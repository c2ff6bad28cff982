"""One rank: a chunk that changes while it is on its way arrives as it was (../test_servers.py)."""
import numpy as np
from mpi4py import MPI

from hpclcae import config as configuration
from hpclcae.mpi.answers import Answers
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.store import Store

SIZE = 1_000_000  # numbers: too many to leave at once
config = configuration.loads('update = {rule = "sgd", rate = 1.0}\nparallel = {servers = 1}')
answers = Answers(MPI.COMM_SELF)
store = Store([Chunk(0, "stage1/encode", (0, 1), (0, 1), 0, SIZE, (1, 1, SIZE, 1), 1)], config,
              changing=answers.changing)
answers.store = store
store.initialise(0, np.zeros(SIZE))
first = store.values[0]
sent = [answers.send(0, 0, 7)]
for version in range(3):  # moved once: then nothing is under way from where it is
    store.push(0, 0, version, version, 1.0, np.full(SIZE, -1, store.dtype))
assert (store.values[0] == 3).all() and (first == 0).all()
moved = store.values[0]
sent.append(answers.send(0, 0, 7))
store.push(0, 0, 3, 3, 1.0, np.full(SIZE, -1, store.dtype))
assert not np.shares_memory(store.values[0], moved)
got = np.empty((2, SIZE), store.dtype)
for into in got:
    MPI.COMM_SELF.Recv(into, 0, 7)
MPI.Request.Waitall(sent)
assert (got[0] == 0).all() and (got[1] == 3).all() and (store.values[0] == 4).all()
sent = answers.send(0, 0, 7)
store.push(0, 0, 4, 4, 1.0, np.full(SIZE, -1, store.dtype))
assert any(np.shares_memory(store.values[0], one) for one in (first, moved))  # memory is used again
MPI.COMM_SELF.Recv(got[0], 0, 7)
sent.Wait()
assert (got[0] == 4).all() and (store.values[0] == 5).all()
print("as they were")

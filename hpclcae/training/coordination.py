"""How the replicas of a job agree on when to start, to pause and to end.

The first replica is the leader: it listens to signals and knows when a checkpoint is due. Its first
block tells the first block of every other replica (`ControlChannel`). That one says so in the sums
of its next step (`Network.flags`), so that all blocks of a replica pause after the same step. Then
each goes to the servers' barrier (`ServerConnection.barrier`), where the checkpoint is taken when
all have come.

Who takes part in what:

* control channel: the first block of every replica.
* flags, and every sum of the communicator: all blocks of one replica.
* barrier: all workers of the job, and all servers.
"""
import queue
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Protocol

from hpclcae.config import Config
from hpclcae.model.network import Flags
from hpclcae.parameter_server.roles import Role
from hpclcae.partition.communicator import Communicator
from hpclcae.utils.signals import Requests

LOOK_SECONDS = 0.05  # between two looks of a thread whether the others have failed


class Command(IntEnum):
    """What the leader asks of the other replicas."""
    GO = 0          # the warm start is over: begin
    CHECKPOINT = 1
    END = 2
    OVER = 3        # nothing more will come


class ControlChannel(Protocol):
    """From the leader to the first block of every other replica; other workers hear nothing.

    is_led : bool
        The leader is no replica: the first one hears, too (survive/).
    """
    is_led: bool = False

    def broadcast(self, command: Command) -> None:
        """Tell the other replicas; only the leader does, of others nobody hears it.

        Where the leader is no replica, it is asked to.
        """

    def poll(self) -> bool:
        """Whether there is a command that `receive` has not returned yet."""

    def receive(self) -> Command:
        """The next command; waits for it."""

    def close(self) -> None:
        """End: the leader says so, the others read what they have not heeded."""


class NoControl(ControlChannel):
    """There is one replica."""

    def broadcast(self, command: Command) -> None:
        """Nobody is there."""

    def poll(self) -> bool:
        return False

    def receive(self) -> Command:
        raise AssertionError("one replica has nobody to hear from")

    def close(self) -> None:
        """Nothing to release."""


class LocalControl(ControlChannel):
    """Replicas as threads of one process.

    Parameters
    ----------
    queues : mapping of int to Queue
        By replica, shared by all; the leader's is not used.
    replica, block : int
    check : callable
        Called while it waits for a command; raises when the others have failed.
    """

    def __init__(self, queues: Mapping[int, "queue.SimpleQueue[Command]"], replica: int,
                 block: int, check: Callable[[], None]) -> None:
        self._queues, self._replica, self._check = queues, replica, check
        self._leads = replica == block == 0
        self._hears = replica > 0 and block == 0

    def broadcast(self, command: Command) -> None:
        if self._leads:
            for replica, commands in self._queues.items():
                if replica:
                    commands.put(command)

    def poll(self) -> bool:
        return self._hears and not self._queues[self._replica].empty()

    def receive(self) -> Command:
        while True:
            try:
                return self._queues[self._replica].get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._check()

    def close(self) -> None:
        """What nobody has heeded goes with the queues."""


class Coordination:
    """One worker's part in what all replicas do together.

    Parameters
    ----------
    role : Role
    communicator : Communicator
        To the blocks of its own replica.
    asked : Requests
        Signals to this process.
    """

    def __init__(self, config: Config, role: Role, communicator: Communicator,
                 control: ControlChannel, asked: Requests) -> None:
        self.config, self.role, self.asked = config, role, asked
        self._communicator, self._control = communicator, control
        self._holds_replicas, self._told_end = config.parallel.warm_start > 0, False
        self._leads = role == Role() and not control.is_led
        self._hears = role.replica > 0 or control.is_led  # the others listen to signals
        self._given = self._heard = 0  # commands

    # ---- the warm start --------------------------------------------------------------------------

    def release_replicas(self, step: int) -> None:
        """After the warm start, let the other replicas begin; `step` steps have been made."""
        if self._holds_replicas and step >= self.config.parallel.warm_start:
            self._holds_replicas = False
            self._broadcast(Command.GO)

    def await_warm_start(self, pause: Callable[[], object]) -> bool:
        """Wait for the leader's warm start; returns whether all is over before it begins.

        pause : callable
            Called for every checkpoint that is taken meanwhile.
        """
        if not self.role.replica or not self._holds_replicas:
            return False
        while True:
            command = self.await_command()
            if command in (Command.GO, Command.END):
                return command == Command.END
            pause()

    def await_command(self) -> Command:
        """What the leader asks for next, the same for all blocks of this replica."""
        heard = self._hear() if self.role.block == 0 else Command.GO
        return Command(int(self._communicator.allreduce_sum([heard])[0]))

    # ---- around every step -----------------------------------------------------------------------

    def flags(self) -> Flags:
        """What this block tells the others of its replica in the next step.

        The first replica listens to signals; the others to the first one.
        """
        if not self._hears:
            return Flags(self.asked.checkpoint, self.asked.end)
        if self._control.poll():
            ending = self._hear() == Command.END
            return Flags(checkpoint=not ending, end=ending)
        return Flags()

    def checkpoints_after(self, step: int, said: Flags) -> int:
        """How many checkpoints this replica takes part in, now that it has made `step` steps.

        Parameters
        ----------
        said : Flags
            By any block of the replica, in its last step.
        """
        every = self.config.train.checkpoint_every  # auto: the leader asks (cluster/interval.py)
        due = every != "auto" and step % every == 0
        lockstep = self.config.parallel.lockstep  # then every replica knows by itself
        now = said.checkpoint or due and not self._hears and not lockstep
        if now:
            self.asked.checkpoint = False
            self._broadcast(Command.CHECKPOINT)
        return now + (due and lockstep)

    def meeting_follows(self, said: Flags) -> None:
        """All replicas come to a checkpoint anyway, and hear there what was asked for."""
        self.asked.checkpoint = False
        if said.end:
            self.end()

    def end(self) -> None:
        """Tell the other replicas that training ends before its last step."""
        self._broadcast(Command.END)
        if self._hears:  # the leader may not know
            self._control.broadcast(Command.END)

    # ---- between two phases ----------------------------------------------------------------------

    def is_ended(self) -> bool:
        """Whether training ends while this worker waits for others, the same for all blocks.

        The barrier that it has just passed is what a command to pause was for.
        """
        if self._leads:
            self.pass_on_signals()
        if self._control.poll():
            self._hear()
        return bool(self._communicator.allreduce_sum([self._told_end])[0])

    def settle(self, peers: Communicator) -> bool:
        """All replicas have come to the same step: whether training ends there.

        Every command that the leader has given is heard now; those to pause are done with, as all
        have just paused.

        Parameters
        ----------
        peers : Communicator
            To all workers of the job.
        """
        given = int(peers.allreduce_sum([self._given if self._leads else 0])[0])
        while self.role.replica and self.role.block == 0 and self._heard < given:
            self._hear()
        return bool(self._communicator.allreduce_sum([self._told_end])[0])

    # ---- signals ---------------------------------------------------------------------------------

    def pass_on_signals(self) -> None:
        """While this worker waits for the others' last steps: tell them what it is asked."""
        if self.asked.end and not self._told_end:
            self._broadcast(Command.END)
        elif self.asked.checkpoint:
            self.asked.checkpoint = False
            self._broadcast(Command.CHECKPOINT)

    def _hear(self) -> Command:
        self._heard += 1
        command = self._control.receive()
        self._told_end = self._told_end or command == Command.END
        return command

    def _broadcast(self, command: Command) -> None:
        if self._leads:
            self._given += 1
            self._told_end = self._told_end or command == Command.END
            self._control.broadcast(command)

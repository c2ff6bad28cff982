"""The supervisor of a surviving job: it starts servers and replicas as worlds of their own, notices
who dies or hangs, starts it again, and conducts barriers and checkpoints.

It is the one process that the job cannot lose: with it everything ends, and the last checkpoint is
good. Everything happens in one loop; `Seat`, `Servers` and `Meeting` are all that it remembers.
"""
import json
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint.folder import MANIFEST, step_folder
from hpclcae.config import Config
from hpclcae.model.phases import phase_of, phases
from hpclcae.parameter_server.header import Header
from hpclcae.parameter_server.roles import joint_step
from hpclcae.survive.commit import commit_alone
from hpclcae.survive.history import LOG
from hpclcae.survive.loop import Loop
from hpclcae.survive.membership import IN_VAIN, Durations, Meeting, Rank, Seat, suspect
from hpclcae.survive.nodes import Nodes
from hpclcae.survive.part import SILENCE_SECONDS, Part
from hpclcae.survive.processes import World
from hpclcae.survive.servers import PING_SECONDS, UNKNOWN_SECONDS, Restart, Servers
from hpclcae.survive.wire import Lost, Peer, text_in
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text
from hpclcae.utils.signals import Requests

LOOK_SECONDS = 0.02
CONTACT = "survive.json"  # in the run folder: how to reach the supervisor


class Supervisor(Loop):
    """One job, from its first process to its last.

    Parameters
    ----------
    config : Config
        With the grid of every replica.
    nodes : Nodes
        Where worlds run.
    program : list of str
        What every process runs.
    blocks : int
        Of every replica.
    asked : Requests
        Signals to this process.
    deviations : float
        A step is too long when it takes so many standard deviations more than the median.
    least : int
        Replicas without which the job ends with a checkpoint.
    seats : int
        Replicas that begin; others may join.
    silence : float
        Seconds without an answer of this machine after which the processes end.
    """

    def __init__(self, config: Config, run: Path, nodes: Nodes, program: list[str], blocks: int,
                 asked: Requests, deviations: float = 20.0, least: int = 1,
                 seats: int | None = None, stop_at: int | None = None,
                 silence: float = SILENCE_SECONDS) -> None:
        self.config, self.run, self.blocks, self._asked = config, run, blocks, asked
        self._nodes, self._program, self._silence = nodes, program, silence
        self._stop_at, self._least = stop_at, least
        self._tries = IN_VAIN - 1 + len(nodes.all)  # the first ones may be the nodes' fault
        found = checkpoint.saved(run / "checkpoints")
        self.start = found[-1] if found else None
        state = checkpoint.load_state(self.start) if self.start else None
        parallel = config.parallel
        cursors = state.cursors if state else ()
        if len(cursors) != parallel.replicas:
            cursors = (state.step if state else 0,) * parallel.replicas
        self.seats = [Seat(number, cursor) for number, cursor in enumerate(cursors)]
        self._first_seats = parallel.replicas if seats is None else seats
        self.servers = Servers(
            parallel.servers, parallel.copies > 0, self.start,
            lambda number, life: nodes.start(self._part("server", number, life), 1, program),
            self._say, deviations, self._tries)
        self._worlds: dict[int, World] = {}  # of seats
        super().__init__(secrets.token_hex(16), nodes.address)
        self.meeting = Meeting()
        assert config.train.checkpoint_every != "auto"  # check_survival
        self._every = config.train.checkpoint_every
        self._due = joint_step(cursors) // self._every
        self._uncommitted: int | None = None  # step of a checkpoint that was taken
        self._lost_shard = self._ending = self._went = False
        self._is_saved = False
        self._is_over, self._reports = False, list[dict[str, Any]]()
        self._starts = Durations(deviations)
        self._steps = {phase: Durations(deviations) for phase in phases(config)}
        self._began = time.monotonic()
        self._before = state.seconds if state else 0.0
        self._too_little = ""
        self._said_over = 0.0

    # ---- the loop --------------------------------------------------------------------------------

    def work(self) -> str:
        """Run the job to its end; returns why it ended before its last step, or "".

        Raises
        ------
        InputError
            It cannot go on.
        Restart
            It can, from the last checkpoint.
        """
        contact = self.run / CONTACT
        try:
            replace_text(contact, json.dumps({"address": self.address, "token": self.token}))
            contact.chmod(0o600)
            for number in self._shards:
                self.servers.start(number)
            for seat in self.seats[:self._first_seats]:
                self._start(seat)
            while not self._is_over:
                self.turn(LOOK_SECONDS)
                self._look_after(time.monotonic())
        finally:
            contact.unlink(missing_ok=True)
            self.close()  # what a launcher cannot end on another node ends by itself
            self._nodes.close()
        return self._too_little

    def lose(self, peer: Peer) -> None:
        """A connection has ended: a process has, or is about to."""
        self.drop(peer)
        if isinstance(peer.about, int):
            if not self._said_over:
                self._server_died(peer.about, "its process has ended")
        elif isinstance(peer.about, tuple):
            number, block = peer.about
            seat = self.seats[number]
            if block in seat.ranks and seat.ranks[block].peer is peer and not seat.ranks[
                    block].ended:
                self._died(seat, f"block {block} (process {seat.ranks[block].pid}) has ended")

    def _say(self, peer: Peer | None, **content: Any) -> None:
        if peer is not None and peer in self.peers:
            try:
                peer.say(**content)
            except Lost:
                pass  # the loop will see it, too

    def take(self, peer: Peer, header: Header, rest: np.ndarray) -> None:
        told = text_in(rest)
        if isinstance(peer.about, int):
            self._take_of_server(peer.about, told)
        elif isinstance(peer.about, tuple):
            self._take_of_rank(self.seats[peer.about[0]], peer.about[1], told)
        else:
            self._answer(peer, told)

    def greet(self, peer: Peer, told: dict[str, Any]) -> None:
        now = time.monotonic()
        if told["role"] == "tool":
            peer.about = "tool"
        elif told["role"] == "server":
            if self.servers.greet(peer, told):
                peer.about = told["number"]
                self.servers.assign()
        else:
            seat = self.seats[told["replica"]]
            if seat.state != "starting" or seat.life != told["life"]:
                return
            peer.about = seat.number, told["block"]
            seat.ranks[told["block"]] = Rank(peer, told["pid"], now, now, seat.cursor, seat.cursor,
                                             node=told["node"])
            self._worlds[seat.number].pids.add(told["pid"])
            if len(seat.ranks) == self.blocks:
                self._starts.note(now - seat.began)

    def note(self, kind: str, who: str, text: str, **more: Any) -> None:
        """Say what happened, and write it down."""
        print(f"hpclcae launch: {who} {text}", flush=True)
        row = {"time": time.time(), "seconds": round(self.seconds, 3), "kind": kind, "who": who,
               "text": text} | more
        with (self.run / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")

    @property
    def _shards(self) -> range:
        return range(self.config.parallel.servers)

    @property
    def seconds(self) -> float:
        """Training time of the job so far."""
        return self._before + time.monotonic() - self._began

    # ---- what is looked at now and then ----------------------------------------------------------

    def _look_after(self, now: float) -> None:
        self._nodes.see_off()
        if not self._said_over:
            for number, why, more in self.servers.dead(now, self._replacing):
                self._server_died(number, why, **more)
        self._look_at_seats(now)
        if self._uncommitted is not None and (step_folder(self.run, self._uncommitted)
                                              / MANIFEST).exists():
            self._uncommitted = None
        self._look_at_barrier()
        if self._asked.end and not self._ending:
            self._end()
        if not any(seat.is_wanted for seat in self.seats):
            self._finish(now)

    @property
    def _replacing(self) -> float:
        """Seconds that it takes to start a process anew, so that waiting so long costs no more; and
        those for which a network may be silent."""
        return max(self._starts.largest or UNKNOWN_SECONDS, self._nodes.patience)

    def _look_at_seats(self, now: float) -> None:
        for seat in self.seats:
            world = self._worlds.get(seat.number)
            if not seat.is_wanted or world is None:
                continue
            code = world.code
            if code == 0 and len(seat.ranks) == self.blocks and all(
                    rank.ended for rank in seat.ranks.values()):
                seat.state = "left" if seat.leaving else "done"
                seat.ranks = {}
                if seat.leaving:
                    self._tell_leave(seat)
                    self.note("leave", f"replica {seat.number}", "has left after step "
                              f"{seat.cursor}", life=seat.life, step=seat.cursor)
            elif code is not None:
                self._died(seat, f"its processes ended with code {code}")
            elif (seat.state == "starting" and len(seat.ranks) == self.blocks
                  and self.servers.serves_all):
                self._join(seat)
            elif seat.state == "starting" and now - seat.began > max(self._replacing,
                                                                     UNKNOWN_SECONDS):
                self._died(seat, "it does not start")
        if self.servers.all_answer(now):
            found = suspect(self.seats, now, self._limit, PING_SECONDS)
            if found:
                seat, block, silent = found
                self._died(seat, f"block {block} (process {seat.ranks[block].pid}) has stood still "
                           f"for {silent:.1f} s (limit {self._limit(seat):.1f} s)", silent=silent)

    def _limit(self, seat: Seat) -> float:
        """Seconds without a step that are too many: in this phase of training, and twice as many
        after every life that was in vain, should it have been judged too early."""
        known = self._steps[phase_of(self.config, seat.step)].limit
        return max(known or UNKNOWN_SECONDS, self._replacing) * 2 ** seat.in_vain

    # ---- servers ---------------------------------------------------------------------------------

    def _part(self, kind: str, number: int, life: int) -> Part:
        return Part(self.address, self.token, kind, number, life, self._silence)

    def _take_of_server(self, number: int, told: dict[str, Any]) -> None:
        kind = told["kind"]
        if kind == "done":
            self._done(told)
        elif kind == "report":
            self._reports += told["reports"]
            self._said_over = self._said_over or time.monotonic()
            self.servers.processes[number].peer = None
        elif kind == "error":
            raise InputError(told["text"])
        elif self.servers.take(number, told):
            self._tell_routes()
            self.servers.assign()

    def _done(self, told: dict[str, Any]) -> None:
        """A server has done to a shard what it was told."""
        if told["what"] == "join":
            replica, life = told["number"]
            seat = self.seats[replica]
            if seat.state == "joining" and seat.life == life:
                seat.joining.discard(told["shard"])
                if not seat.joining:
                    self._welcome(seat)
        elif told["what"] == "checkpoint" and self.meeting.awaited is not None:
            if told["number"] == self.meeting.number:
                self.meeting.awaited.discard(told["shard"])

    def _server_died(self, number: int, why: str, **more: Any) -> None:
        world = self.servers.processes[number].world
        why += self._nodes.where(world)
        if peer := self.servers.remove(number):
            self.drop(peer)
        if not peer or "silent" in more:
            self._nodes.doubt(world)
        self._lost_shard = self._uncommitted is not None
        try:
            taken = self.servers.take_over(number, any(seat.state == "training"
                                                       for seat in self.seats))
        except Restart as lost:
            self.note("server", f"server {number}", f"died: {why}; {lost}", **more)
            raise
        self.note("server", f"server {number}", "; ".join([f"died: {why}", *taken]), **more)
        self._tell_routes()
        self.servers.start(number)
        if self._lost_shard and all(s.state != "training" or all(r.final for r in s.ranks.values())
                                    for s in self.seats):
            for seat in self.seats:  # who waits for the shards of the last checkpoint waits in vain
                if seat.is_wanted:
                    self._died(seat, "the last checkpoint lost a shard")

    def _tell_routes(self) -> None:
        """Tell workers where shards are, and servers that have just taken one over what is due."""
        addresses = self.servers.addresses
        for seat in self.seats:
            if seat.state == "training":
                for rank in seat.ranks.values():
                    self._say(rank.peer, kind="routes", addresses=addresses)
        for seat in self.seats:
            if seat.state == "joining":
                for index in seat.joining:
                    self._tell_join(seat, index)
        if self.meeting.awaited:
            for index in self.meeting.awaited:
                self._tell_checkpoint(index)

    # ---- replicas --------------------------------------------------------------------------------

    def _start(self, seat: Seat) -> None:
        seat.life += 1
        seat.leaving, seat.error = False, ""
        seat.state, seat.ranks, seat.began = "starting", {}, time.monotonic()
        part = self._part("replica", seat.number, seat.life)
        self._worlds[seat.number] = self._nodes.start(part, self.blocks, self._program)

    def _join(self, seat: Seat) -> None:
        """All of its processes are there: tell the servers; a checkpoint under way comes first."""
        if self.meeting.awaited is not None:
            return
        seat.state, seat.joining = "joining", set(self._shards)
        for index in self._shards:
            self._tell_join(seat, index)

    def _tell_join(self, seat: Seat, index: int) -> None:
        self.servers.tell_holder(index, kind="join", replica=seat.number, life=seat.life,
                                 clock=seat.cursor, number=[seat.number, seat.life])

    def _welcome(self, seat: Seat) -> None:
        seat.state = "training"
        now = time.monotonic()
        if seat.life > 1 or seat.number >= self._first_seats:
            self.note("join", f"replica {seat.number}", f"begins with step {seat.cursor} in life "
                      f"{seat.life}{self._nodes.where(self._worlds[seat.number])}, "
                      f"{now - seat.began:.1f} s after it was started",
                      life=seat.life, step=seat.cursor, took=now - seat.began)
        begun = self.start is not None or any(s.cursor or s.step for s in self.seats)
        for rank in seat.ranks.values():
            rank.heard = rank.moved = now
            self._say(rank.peer, kind="routes", addresses=self.servers.addresses)
            self._say(rank.peer, kind="welcome", step=seat.cursor, seconds=self.seconds,
                      start=str(self.start or ""), begun=begun, stop_at=self._stop_at)
            self._say_standing(seat, rank)

    def _say_standing(self, seat: Seat, rank: Rank) -> None:
        """What holds for all that train: a barrier, the end, the end of the warm start."""
        if self.meeting.asked:
            self._say(rank.peer, kind="pause", number=self.meeting.number)
        if self._ending:
            self._say(rank.peer, kind="end")
        if self._went and seat.number:
            self._say(rank.peer, kind="go")

    def _tell_all(self) -> None:
        for seat in self.seats:
            if seat.state == "training":
                for rank in seat.ranks.values():
                    self._say_standing(seat, rank)

    def _take_of_rank(self, seat: Seat, block: int, told: dict[str, Any]) -> None:
        rank, kind, now = seat.ranks[block], told["kind"], time.monotonic()
        rank.heard = now
        if kind == "progress":
            made = told["step"] - max(rank.step, seat.cursor)  # not by the lives before
            if made > 0 and not rank.paused:
                if block == 0 and seat.state == "training" and rank.step > seat.cursor:
                    self._steps[phase_of(self.config, rank.step)].note((now - rank.moved) / made)
                seat.in_vain = 0
            if made > 0 or told["work"] != rank.work:
                rank.moved = now
            rank.step, rank.safe, rank.waits = told["step"], told["safe"], told["waits"]
            rank.work = told["work"]
            warm = self.config.parallel.warm_start
            if warm and not self._went and seat.number == 0 and seat.step >= warm:
                self._went = True
                self._tell_all()
        elif kind == "barrier":
            rank.paused, rank.final = True, told["final"]
            rank.step = rank.safe = told["clock"]
        elif kind == "report":
            rank.ended = True
            self._reports.append(told["report"])
        elif kind == "error":
            seat.error = told["text"]
        elif kind == "ask" and told["what"] == "end":
            self._end()

    def _died(self, seat: Seat, why: str, **more: Any) -> None:
        """A replica has come to an end that was not its own: it begins again."""
        world = self._worlds.pop(seat.number)
        world.kill()
        for rank in seat.ranks.values():
            self.drop(rank.peer)
        before, error = seat.cursor, seat.error
        why = (error or why) + self._nodes.where(world)
        if not error and (seat.state == "starting" or "silent" in more):
            self._nodes.doubt(world)
        if seat.state == "training":
            seat.cursor = max(seat.cursor, min(rank.safe for rank in seat.ranks.values()))
        if error and seat.cursor == before and seat.in_vain:
            raise InputError(error)
        seat.in_vain = seat.in_vain + 1 if seat.cursor == before else 0
        self._tell_leave(seat)
        if seat.leaving:
            seat.state = "left"
            self.note("leave", f"replica {seat.number}", f"was to leave, and died: {why}",
                      life=seat.life, step=seat.cursor, **more)
            return
        if seat.in_vain >= self._tries:
            seat.state = "lost"
            self.note("lost", f"replica {seat.number}", f"died: {why}; it has died {self._tries} "
                      "times without making a step, and is not started again", life=seat.life,
                      **more)
            self._check_enough()
            return
        self.note("replica", f"replica {seat.number}", f"died in life {seat.life}: {why}",
                  life=seat.life, step=seat.cursor, **more)
        seat.ranks = {}
        self._start(seat)

    def _tell_leave(self, seat: Seat) -> None:
        for index in self._shards:
            self.servers.tell_holder(index, kind="leave", replica=seat.number, life=seat.life,
                                     clock=seat.cursor, number=0)

    def _check_enough(self) -> None:
        left = sum(seat.is_wanted or seat.state == "done" for seat in self.seats)
        if left < self._least and not self._too_little:
            self._too_little = (f"{left} replicas are left, and --least says {self._least}")
            self._end()

    # ---- barriers and the end --------------------------------------------------------------------

    def _end(self) -> None:
        self._ending = True
        self._tell_all()

    def _look_at_barrier(self) -> None:
        meeting = self.meeting
        wanted = [seat for seat in self.seats if seat.is_wanted and not seat.leaving]
        self._let_go()
        if meeting.awaited is not None:
            if not meeting.awaited:
                self._release()
            return
        training = [seat for seat in wanted if seat.state == "training"]
        if not meeting.asked and training and len(training) == len(wanted):
            step = joint_step([seat.step for seat in self.seats])
            if step // self._every > self._due or self._asked.checkpoint:
                self._asked.checkpoint, self._due = False, step // self._every
                meeting.asked = True
                self._tell_all()
        if wanted and len(training) == len(wanted) and all(
                rank.paused for seat in training for rank in seat.ranks.values()):
            for seat in training:
                seat.cursor = max(seat.cursor, min(r.step for r in seat.ranks.values()))
            self._take_checkpoint()

    def _let_go(self) -> None:
        """Replicas that leave wait for nobody."""
        for seat in self.seats:
            ranks = seat.ranks.values()
            if seat.leaving and seat.state == "training" and all(
                    rank.paused and rank.final for rank in ranks):
                seat.cursor = max(seat.cursor, seat.step)
                for rank in ranks:
                    rank.paused = False
                    self._say(rank.peer, kind="released", number=self.meeting.number - 1,
                              clocks=self._clocks(), over=True, lost=False, commits=False)

    def _clocks(self) -> list[int]:
        return [seat.cursor for seat in self.seats]

    def _take_checkpoint(self) -> None:
        self.meeting.awaited = set(self._shards)
        for index in self._shards:
            self._tell_checkpoint(index)

    def _tell_checkpoint(self, index: int) -> None:
        self.servers.tell_holder(index, kind="checkpoint", clocks=self._clocks(),
                                 number=self.meeting.number)

    def _release(self) -> None:
        now, clocks = time.monotonic(), self._clocks()
        wanted = [seat for seat in self.seats if seat.is_wanted and not seat.leaving]
        if not wanted:
            commit_alone(self.run, self.config, self.start, clocks, self.seconds)
        over = all(rank.final for seat in wanted for rank in seat.ranks.values())
        self._uncommitted = joint_step(clocks)
        first = next((seat for seat in wanted if seat.state == "training"), None)
        for seat in wanted:
            for block, rank in seat.ranks.items():
                self._say(rank.peer, kind="released", number=self.meeting.number, clocks=clocks,
                          over=over, lost=self._lost_shard,
                          commits=block == 0 and seat is first)
                rank.paused, rank.moved = False, now
        self._lost_shard = False
        self.meeting = Meeting(self.meeting.number + 1)

    def _finish(self, now: float) -> None:
        """All replicas have ended: let the servers end, too."""
        died = any(seat.state == "lost" for seat in self.seats)
        if died and not any(seat.state == "done" for seat in self.seats) and not self._is_saved:
            if self.meeting.awaited is None:
                self._is_saved = True
                self._take_checkpoint()
            return
        if self.meeting.awaited is not None:
            return
        if not self._said_over:
            self._said_over = now
            self.servers.end()
        if self.servers.have_ended or now - self._said_over > UNKNOWN_SECONDS:
            (self.run / "parallel.json").write_text(
                "[" + ",\n ".join(map(json.dumps, self._reports)) + "]\n")
            self._is_over = True

    # ---- tools -----------------------------------------------------------------------------------

    def _answer(self, peer: Peer, told: dict[str, Any]) -> None:
        """What another process asks: who is there, or that a replica joins or leaves."""
        if told["kind"] in ("join", "leave"):
            try:
                who = (self._let_join if told["kind"] == "join" else self._let_leave)(
                    told["replica"])
                self._say(peer, kind="done", replica=who)
            except InputError as error:
                self._say(peer, kind="error", text=str(error))
            return
        self._say(peer, kind="who", seats=[{
            "replica": seat.number, "state": seat.state, "life": seat.life, "step": seat.step,
            "pid": self._worlds[seat.number].pid if seat.number in self._worlds else None,
            "pids": {block: rank.pid for block, rank in seat.ranks.items()},
            "nodes": {block: rank.node for block, rank in seat.ranks.items()}}
            for seat in self.seats], servers=self.servers.as_json())

    def _let_join(self, number: int | None) -> int:
        free = [seat.number for seat in self.seats if seat.state in ("left", "lost")]
        if not free or number is not None and number not in free:
            which = "no replica" if not free else f"replica {number} does not, but " + ", ".join(
                map(str, free))
            raise InputError(f"{which} waits to join: the job has seats for parallel.replicas = "
                             f"{len(self.seats)} replicas")
        seat = self.seats[free[0] if number is None else number]
        seat.in_vain = 0
        self.note("join", f"replica {seat.number}", "is asked to join")
        self._start(seat)
        return seat.number

    def _let_leave(self, number: int) -> int:
        there = [seat.number for seat in self.seats
                 if seat.state == "training" and not seat.leaving]
        if number not in there:
            raise InputError(f"replica {number} does not train now; those that do: "
                             f"{', '.join(map(str, there)) or 'none'}")
        if len(there) <= self._least:
            raise InputError(f"{len(there)} replicas train, and --least says {self._least}: end "
                             "the job with a TERM to hpclcae launch")
        seat = self.seats[number]
        seat.leaving = True
        for rank in seat.ranks.values():
            self._say(rank.peer, kind="end")
        return number

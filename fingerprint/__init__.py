"""Audio in, embeddings out. Knows nothing of indexes or HTTP.

Matrices here are small, and files and requests are worked on side by side, so each of them gets one thread
of BLAS and OpenMP; more would wait for each other, at many times the cost. It has to be said before NumPy is
imported, so every package of Earmark imports this one first.
"""

import os

for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

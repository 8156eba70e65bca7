"""Linear algebra whose last digits do not depend on the number of threads."""

from __future__ import annotations

import threadpoolctl


def one_blas_thread() -> threadpoolctl.threadpool_limits:
    """Give NumPy's and SciPy's OpenBLAS one thread each: the last digits of sums depend on their number."""
    import scipy.linalg  # noqa: F401 - only what is loaded is limited  # pyright: ignore

    return threadpoolctl.threadpool_limits(1, user_api="blas")

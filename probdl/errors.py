"""The two ways in which an iteration can fail: the result would be wrong, or it is merely imprecise."""


class ConvergenceError(RuntimeError):
    """Raised where a result would be wrong because an iteration did not reach its fixed point or optimum."""


class ConvergenceWarning(UserWarning):
    """Issued where a result is usable but less precise than was asked."""

"""torch's elementary functions, whose kernels are chosen before several threads need them at once."""

_FUNCTIONS = (
    *("acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "floor", "log"),
    *("log10", "log1p", "log2", "round", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)


def settle_vector_math() -> None:
    """Let torch choose its kernels for elementary functions now; called first in a process that computes with it.

    torch 2.13 carries a oneMKL that chooses a function's kernel at its first call. Where several threads make it
    together, one of them can take a kernel of low accuracy for its share (pytorch issue 188792): 1 of 72 processes
    here, on loaded cores, had a table of cosines with errors of 1.5e-4. A call on a single number is one thread's.
    """
    import torch

    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype)
        for name in _FUNCTIONS:
            getattr(torch, name)(number)

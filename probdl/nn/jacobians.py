r"""How far a state remembers: Jacobians between the states of a recurrent network, and their norms against the lag.

All are derivatives along *all* paths of the unrolled network, for the inputs held fixed, but for
``cell_direct_path``. Steps count from zero. A path from a layer's state at k to its state at t stays in the layer, so
that in a network of several layers each has the Jacobians of a single one on the outputs of the layer below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.nn.cells import LSTM
from probdl.nn.recurrent import Recurrent
from probdl.nn.unrolled import States, checked, gates, layer_inputs, unroll
from probdl.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd


@one_thread()  # many small steps
def hidden_jacobian(net: Recurrent, x: Any, t: int, k: int, *, layer: int = -1) -> Tensor:
    r"""Return how the hidden state at t depends on that at k, :math:`∂h_t / ∂h_k`.

    For the simple network it is the product

    .. math::
        \frac{∂h_t}{∂h_k} = D_t w\, D_{t-1} w \cdots D_{k+1} w, \qquad
        D_j = \mathrm{diag}\, a'(b + w h_{j-1} + U x_j),

    in this order: the :math:`D_j` do not commute with w, so that it is not :math:`(\prod_j D_j)\, w^{t-k}`; only its
    norm is bounded by :math:`\prod_j \|D_j\| \|w\|`. In an LSTM the cell :math:`c_k` is held fixed, as it comes before
    :math:`h_k`: the paths from :math:`h_k` begin at the gates of step k + 1.

    Args:
        net: an ``RNN``, ``LSTM`` or ``GRU``, one way; dropout is left out.
        x: array-like, (n, T, inputs).
        t, k: steps, 0 ≤ k ≤ t < T; the identity for k = t.
        layer: from 0; -1 is the top.

    Returns:
        (n, hidden, hidden): entry [s, i, j] is the derivative of :math:`h_{t,i}` by :math:`h_{k,j}` in sequence s.

    Raises:
        ValueError, TypeError: for steps outside of the sequences, a network of two directions, or another ``x``.

    Reference:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, ICML.

    Example:
        >>> import torch
        >>> from probdl.nn import RNN
        >>> net = RNN(1, 2).double()
        >>> one_step = hidden_jacobian(net, torch.zeros(1, 1, 1), 0, 0)
        >>> one_step.shape, one_step[0].tolist()
        (torch.Size([1, 2, 2]), [[1.0, 0.0], [0.0, 1.0]])
    """
    x, layer = checked(net, x, layer)
    _check_steps(x, t, k)
    states = _states(net, x, layer, t)
    return _jacobians(states[t][0], [states[k][0]])[0]


@one_thread()  # many small steps
def cell_jacobian(net: LSTM, x: Any, t: int, k: int, *, layer: int = -1) -> Tensor:
    r"""Return how an LSTM's cell at t depends on that at k, :math:`∂c_t / ∂c_k`, in total.

    Two kinds of paths lead from :math:`c_k` on: directly to :math:`c_{k+1} = f_{k+1} ⊙ c_k + \dots`, and by way of
    :math:`h_k = o_k ⊙ \tanh c_k` to the gates of step k + 1. ``cell_direct_path`` is the first kind alone. As the
    second leaves the cell, the total over several steps is not the product of the totals of one step.

    Args:
        net: an ``LSTM``, one way; dropout is left out.
        x, t, k, layer: as in ``hidden_jacobian``.

    Returns:
        (n, hidden, hidden): entry [s, i, j] is the derivative of :math:`c_{t,i}` by :math:`c_{k,j}` in sequence s.

    Raises:
        ValueError, TypeError: as ``hidden_jacobian``.

    Reference:
        Hochreiter and Schmidhuber (1997), Long short-term memory, Neural Computation 9.

    Example:
        >>> import torch
        >>> from probdl.nn import LSTM, seeded
        >>> with seeded(0):
        ...     net = LSTM(1, 1).double()
        >>> x = torch.zeros(1, 9, 1)
        >>> [round(f(net, x, 8, 0).item(), 4) for f in (cell_jacobian, cell_direct_path)]
        [0.0802, 0.074]
    """
    x, layer = checked(net, x, layer, LSTM)
    _check_steps(x, t, k)
    states = _states(net, x, layer, t)
    return _cell_jacobians(net, x, layer, states, t, [k])[0]


def cell_direct_path(net: LSTM, x: Any, t: int, k: int, *, layer: int = -1) -> Tensor:
    r"""Return the direct path of :math:`∂c_t / ∂c_k`, gates held fixed: :math:`\mathrm{diag}\, f_t \cdots f_{k+1}`.

    Where an LSTM is said to keep its gradient, this path is meant; the total, ``cell_jacobian``, has those through the
    gates too.

    Args:
        net, x, t, k, layer: as in ``cell_jacobian``.

    Returns:
        (n, hidden, hidden), diagonal.

    Raises:
        ValueError, TypeError: as ``hidden_jacobian``.

    Reference:
        Gers, Schmidhuber and Cummins (2000), Learning to forget, Neural Computation 12.

    Example:
        >>> import torch
        >>> from probdl.nn import LSTM
        >>> net = LSTM(1, 2, forget_bias=50.0).double()
        >>> cell_direct_path(net, torch.zeros(1, 9, 1), 8, 0)[0].round().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    x, layer = checked(net, x, layer, LSTM)
    _check_steps(x, t, k)
    return torch.diag_embed(gates(net, x, layer=layer)["f"][:, k + 1 : t + 1].prod(1))


@one_thread()  # many small steps
def gradient_norms(
    net: Recurrent, x: Any, *, t: int | None = None, layer: int = -1, level: float = 0.9
) -> pd.DataFrame:
    r"""Return how far back a state depends on earlier ones: spectral norms of Jacobians against the lag t - k.

    Args:
        net: an ``RNN``, ``LSTM`` or ``GRU``, one way; dropout is left out.
        x: array-like, (n, T, inputs), at least two sequences.
        t: the later step; None: the last.
        layer: from 0; -1 is the top.
        level: the share of the sequences between ``lower`` and ``upper``.

    Returns:
        A row for each quantity and each lag from 0 to t, with the ``mean`` of :math:`\|J\|_2` over the sequences, its
        ``stderr``, the quantiles ``lower``, ``median`` and ``upper``, and ``n``. The quantities are "hidden"
        (:math:`∂h_t/∂h_k`) and, for an LSTM, "cell" (:math:`∂c_t/∂c_k`) and "cell, direct path".

    Raises:
        ValueError, TypeError: as ``hidden_jacobian``; or for a single sequence, which has no spread.

    Reference:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, ICML.

    Example:
        >>> import torch
        >>> from probdl.nn import RNN
        >>> net = RNN(1, 4).double()
        >>> with torch.no_grad():
        ...     _ = net.parts()["h"].w.copy_(0.5 * torch.eye(4))
        >>> table = gradient_norms(net, torch.randn(8, 3, 1))
        >>> table["lag"].tolist(), bool((table["upper"] <= 0.5 ** table["lag"] + 1e-12).all())
        ([0, 1, 2], True)
    """
    x, layer = checked(net, x, layer)
    t = x.shape[1] - 1 if t is None else t
    _check_steps(x, t, 0)
    if len(x) < 2:
        raise ValueError("x must hold at least two sequences, for the spread of the norms; got one.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level!r}.")
    states, every = _states(net, x, layer, t), range(t + 1)
    found = {"hidden": _norms(_jacobians(states[t][0], [s[0] for s in states]))}
    if isinstance(net, LSTM):
        found["cell"] = _norms(_cell_jacobians(net, x, layer, states, t, every))
        found["cell, direct path"] = _norms([cell_direct_path(net, x, t, k, layer=layer) for k in every])
    return _table({name: norms.flip(0) for name, norms in found.items()}, level)


def _states(net: Recurrent, x: Tensor, layer: int, t: int) -> States:
    """Return the states of a layer up to step t, in autograd's graph."""
    with torch.enable_grad():
        return unroll(net, layer_inputs(net, x[:, : t + 1], layer), layer)


def _jacobians(of: Tensor, by: Sequence[Tensor]) -> list[Tensor]:
    """Return the Jacobians (n, H, H) of a state (n, H) by others; a row of each in one pass back."""
    with torch.enable_grad():
        columns = [column.sum() for column in of.unbind(1)]
    rows = [torch.autograd.grad(column, by, retain_graph=True) for column in columns]
    return [torch.stack(of_one, 1) for of_one in zip(*rows)]


def _cell_jacobians(net: LSTM, x: Tensor, layer: int, states: States, t: int, steps: Sequence[int]) -> list[Tensor]:
    """Return ∂c_t/∂c_k for several k: through the cell, plus through h_k = o_k tanh(c_k)."""
    c_t, o = states[t][1], gates(net, x[:, : t + 1], layer=layer)["o"]
    before = [k for k in steps if k < t]
    nodes = [states[k][1] for k in before] + [states[k][0] for k in before]
    both = _jacobians(c_t, nodes) if before else []
    found = {k: torch.eye(net.hidden).to(c_t).expand(len(x), -1, -1) for k in steps}
    for k, by_c, by_h in zip(before, both, both[len(before) :]):
        h_by_c = o[:, k] * (1 - states[k][1].detach().tanh() ** 2)
        found[k] = by_c + by_h * h_by_c[:, None, :]
    return [found[k] for k in steps]


def _norms(jacobians: Sequence[Tensor]) -> Tensor:
    """Return the spectral norms, (steps, n)."""
    return torch.linalg.matrix_norm(torch.stack(list(jacobians)), 2)


def _table(norms: dict[str, Tensor], level: float) -> pd.DataFrame:
    """Return the spread over the sequences, for norms (lags, n) by quantity."""
    import pandas as pd

    frames = []
    for name, values in norms.items():
        n, tail = values.shape[1], (1 - level) / 2
        at = torch.tensor([tail, 0.5, 1 - tail]).to(values)
        lower, median, upper = values.quantile(at, dim=1).cpu().numpy()
        spread = {"mean": values.mean(1), "stderr": values.std(1) / n**0.5}
        columns = {column: value.cpu().numpy() for column, value in spread.items()}
        frame = pd.DataFrame({"quantity": name, "lag": range(len(values)), **columns})
        frames.append(frame.assign(lower=lower, median=median, upper=upper, n=n))
    return pd.concat(frames, ignore_index=True)


def _check_steps(x: Tensor, t: int, k: int) -> None:
    if not 0 <= k <= t < x.shape[1]:
        raise ValueError(f"t and k must be steps with 0 ≤ k ≤ t < {x.shape[1]}, the length of x; got t={t}, k={k}.")

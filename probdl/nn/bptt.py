"""Back-propagation through time as a sum over the steps at which a weight was used, and when its terms vanish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.nn.cells import RNN
from probdl.nn.recurrent import Recurrent
from probdl.nn.unrolled import checked, hidden_states, layer_index, layer_inputs, unroll
from probdl.threads import one_thread


@one_thread()  # many small steps
def weight_gradient_by_step(
    net: Recurrent, x: Any, loss: Callable[[Tensor], Tensor], t: int, *, layer: int = -1
) -> dict[str, Tensor]:
    r"""Return the gradient of the loss at step t by w, split by the step k at which w was used.

    .. math:: \frac{∂L_t}{∂w} = \sum_{k=0}^t \frac{∂L_t}{∂h_t} \frac{∂h_t}{∂h_k} \frac{∂^+ h_k}{∂w},

    where :math:`∂^+ h_k / ∂w` has :math:`h_{k-1}` held fixed. That is the formula of the simple network. Here each
    term is the derivative by the w of step k alone, with those of the other steps held fixed: the same there, and
    defined for every cell.

    Args:
        net: an ``RNN``, ``LSTM`` or ``GRU``, one way; dropout is left out.
        x: array-like, (n, T, inputs).
        loss: the loss :math:`L_t` as a function of the top layer's :math:`h_t`, (n, hidden) → a scalar.
        t: a step, from 0.
        layer: whose w; from 0, -1 is the top.

    Returns:
        From the name of a gate to its terms, (t + 1, hidden, hidden), one for each k. The first is zero, as
        :math:`h_{-1} = 0`; their sum is autograd's gradient.

    Raises:
        ValueError, TypeError: as ``hidden_jacobian``; or if the loss is not a scalar that depends on its argument.

    Reference:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, ICML, equation 4.

    Example:
        >>> import torch
        >>> from probdl.nn import RNN
        >>> net, x = RNN(2, 3).double(), torch.randn(5, 6, 2, dtype=torch.float64)
        >>> terms = weight_gradient_by_step(net, x, lambda h: h.square().sum(), 5)["h"]
        >>> net(x)[0][:, 5].square().sum().backward()
        >>> torch.allclose(terms.sum(0), net.cell.weight_hh_l0.grad, atol=1e-12)
        True
    """
    x, layer = checked(net, x, layer)
    if not 0 <= t < x.shape[1]:
        raise ValueError(f"t must be a step from 0 to {x.shape[1] - 1}; got {t!r}.")
    w = getattr(net.cell, net.weight_names(layer)[1]).detach()
    copies = [w.clone().requires_grad_() for _ in range(t + 1)]
    with torch.enable_grad():
        h = hidden_states(unroll(net, layer_inputs(net, x[:, : t + 1], layer), layer, copies))
        for above in range(layer + 1, net.layers):
            h = hidden_states(unroll(net, h, above))
        value = loss(h[:, t])
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise ValueError(f"loss must map h_t, (n, {net.hidden}), to a scalar that depends on it; got {value!r}.")
    terms = torch.stack(torch.autograd.grad(value, copies))
    return dict(zip(net.GATES, terms.chunk(len(net.GATES), 1)))


ROUNDING = 1e-6  # of a singular value in float32


@dataclass(frozen=True)
class SpectralCondition:
    r"""What the largest singular value of w says about :math:`∂h_t / ∂h_k` of a simple network.

    Attributes:
        sigma: the largest singular value of w.
        gamma: the bound of the activation's derivative, :math:`\|D_j\| ≤ γ`.
        radius: the spectral radius of w, its largest eigenvalue in modulus; never above ``sigma``.
    """

    sigma: float
    gamma: float
    radius: float

    @property
    def must_vanish(self) -> bool:
        r"""Whether :math:`σ_{\max}(w) < 1/γ`, beyond rounding, which is sufficient for gradients to vanish."""
        return self.gamma * self.sigma < 1 - ROUNDING

    @property
    def may_explode(self) -> bool:
        r"""Whether :math:`σ_{\max}(w) > 1/γ`, beyond rounding, which is necessary for gradients to explode."""
        return self.gamma * self.sigma > 1 + ROUNDING

    def bound(self, lag: int) -> float:
        r"""Return :math:`(γ\,σ_{\max}(w))^{t-k} ≥ \|∂h_t / ∂h_k\|_2`."""
        return (self.gamma * self.sigma) ** lag

    def __str__(self) -> str:
        head = f"σ_max(w) = {self.sigma:.4g}, 1/γ = {1 / self.gamma:.4g}, spectral radius {self.radius:.4g}: "
        if self.must_vanish:
            return head + f"sufficient for vanishing: ‖∂h_t/∂h_k‖ ≤ {self.gamma * self.sigma:.4g}^(t−k) for all inputs."
        if self.may_explode:
            return head + "exploding is possible (necessary, not sufficient: gradients may still vanish)."
        return head + "at the border: ‖∂h_t/∂h_k‖ ≤ 1, gradients do not explode and may or may not vanish."


def pascanu(net: RNN, *, layer: int = -1) -> SpectralCondition:
    r"""Return Pascanu's conditions for the gradients of a simple network to vanish or explode.

    With :math:`\|D_j\| ≤ γ` (1 for tanh and for ReLU), :math:`\|∂h_t/∂h_k\| ≤ (γ\,σ_{\max}(w))^{t-k}`. So
    :math:`σ_{\max}(w) < 1/γ` *suffices* for them to vanish, and :math:`σ_{\max}(w) > 1/γ` is *necessary* for them to
    explode, and no more than that: where tanh saturates, the :math:`D_j` are small.

    Args:
        net: an ``RNN``; for the gated networks no such condition on one matrix is known.
        layer: from 0; -1 is the top.

    Raises:
        TypeError: for another network.
        ValueError: if there is no such layer.

    Reference:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, ICML, section 2.1,
        where they speak of the largest singular value.

    Example:
        >>> import torch
        >>> from probdl.nn import RNN
        >>> net = RNN(1, 2).double()
        >>> with torch.no_grad():
        ...     _ = net.parts()["h"].w.copy_(0.5 * torch.eye(2))
        >>> print(pascanu(net))
        σ_max(w) = 0.5, 1/γ = 1, spectral radius 0.5: sufficient for vanishing: ‖∂h_t/∂h_k‖ ≤ 0.5^(t−k) for all inputs.
    """
    if not isinstance(net, RNN):
        raise TypeError(f"net must be an RNN, whose Jacobian is a product of D_j w; got {type(net).__name__}.")
    with torch.no_grad():
        w = net.parts(layer_index(net, layer))["h"].w
        sigma = float(torch.linalg.matrix_norm(w, 2))
        radius = float(torch.linalg.eigvals(w).abs().max())
    return SpectralCondition(sigma, 1.0, radius)

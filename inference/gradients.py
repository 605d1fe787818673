r"""The course's two estimators of :math:`\frac{∂}{∂φ} E_{q(z; φ)} f(z)`: the score function, and reparameterisation.

Both return the mean over draws with its standard error, and the variance of a single draw's gradient, which says what
an estimator costs. ``examples/plot_gradient_estimators.py`` sets them beside the exact gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GradientEstimate:
    """A Monte Carlo gradient with its uncertainty, each in the shape of φ.

    Attributes:
        value: the mean over the draws.
        stderr: its standard errors.
        variance: of one draw's gradient, by component.
        n: the number of draws.
        method: "score function" (with its control variate) or "reparameterisation".
    """

    value: Tensor
    stderr: Tensor
    variance: Tensor
    n: int
    method: str

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the normal intervals ``value ± z·stderr`` that cover each component with probability ``level``.

        Raises:
            ValueError: if ``level`` is not in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level}.")
        z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
        return self.value - z * self.stderr, self.value + z * self.stderr

    def __repr__(self) -> str:
        rows = zip(self.value.reshape(-1).tolist(), self.stderr.reshape(-1).tolist())
        parts = [f"{value:.4g} ± {error:.2g}" for value, error in list(rows)[:6]]
        return f"[{', '.join(parts)}{', …' if self.value.numel() > 6 else ''}] ({self.method}, n={self.n})"


def score_gradient(
    f: Function,
    q: Callable[[Tensor], Distribution],
    phi: Tensor,
    *,
    draws: int = 10_000,
    seed: int = 0,
    control_variate: bool | float = True,
) -> GradientEstimate:
    r"""Return :math:`\frac{∂}{∂φ} E_q f(z) = E_q[f(z)\, ∂ \log q(z; φ)/∂φ]` by draws; f needs no derivative.

    The score has mean zero, so that any constant c may be taken away from f. The variance of component k is smallest at
    :math:`c_k^* = E[f s_k^2] / E[s_k^2]`, with s the score; for each draw it is estimated from all *other* draws, which
    leaves the estimate unbiased. For the bound L(θ, φ) pass f = log p(x, z) − log q(z; φ) with q's density at fixed φ:
    the gradient through it has mean zero.

    Args:
        f: maps draws (n, *shape) to values (n,), row by row.
        q: maps φ to any torch distribution, discrete ones too; its batch dimensions are independent parts of z.
        phi: where, a floating tensor of any shape.
        draws: how many, at least 3.
        seed: of the draws; the global state is restored.
        control_variate: True takes :math:`c^*`, False none, a number that constant.

    Returns:
        A ``GradientEstimate``.

    Raises:
        TypeError: if φ is not a floating tensor, or q(φ) not a distribution.
        ValueError: for φ that is not finite, fewer than 3 draws, values of f that are not finite or not one for each
            draw, or a log-density that does not depend on φ.

    Source: Williams (1992), *Simple statistical gradient-following algorithms*; Ranganath, Gerrish & Blei (2014),
    *Black box variational inference*.

    Example:
        >>> import torch
        >>> from torch.distributions import Poisson
        >>> gradient = score_gradient(lambda z: z**2, lambda rate: Poisson(rate), torch.tensor(3.0).double())
        >>> bool((gradient.value - 7).abs() < 4 * gradient.stderr)  # E z² = φ + φ², whose derivative is 7
        True
    """
    _check(phi, draws)
    with _drawing(seed):
        law = q(phi.detach())
        if not isinstance(law, Distribution):
            raise TypeError(f"q must return a torch distribution; got {type(law).__name__}.")
        z = law.sample((draws,))
        values = _values(f, z).detach()
        scores = _per_draw(lambda p, x: q(p).log_prob(x).sum(), phi, z)
    if scores is None:
        raise ValueError("The log-density of q(φ) does not depend on φ: build q from the argument it is given.")
    flat = scores.reshape(draws, -1)
    baseline, name = _baseline(values, flat, control_variate)
    return _estimate(((values[:, None] - baseline) * flat).reshape(scores.shape), f"score function{name}")


def _baseline(values: Tensor, scores: Tensor, control_variate: bool | float) -> tuple[Tensor, str]:
    """The constants to take away, (n, p) or one; the best one for each draw comes from the others."""
    if control_variate is False:
        return values.new_zeros(1, 1), ""
    if control_variate is not True:
        return values.new_full((1, 1), float(control_variate)), f", baseline {float(control_variate):g}"
    squares = scores.square()
    weighted = values[:, None] * squares
    others = (squares.sum(0) - squares).clamp(min=torch.finfo(scores.dtype).tiny)
    return (weighted.sum(0) - weighted) / others, ", optimal baseline"


def reparameterised_gradient(
    f: Function,
    g: Callable,
    phi: Tensor,
    noise: Distribution | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> GradientEstimate:
    r"""Return :math:`\frac{∂}{∂φ} E f(g(φ, ε)) = E[f'(g(φ, ε))\, ∂g(φ, ε)/∂φ]` by draws of ε, whose law is free of φ.

    Args:
        f: maps draws z (n, *shape) to values (n,), row by row and differentiably.
        g: maps φ and one ε to z, differentiably in φ, such as ``lambda phi, e: phi[0] + phi[1] * e``, or an inverse
            distribution function of a uniform ε. Without ``noise``, a function of φ that returns a torch distribution
            with reparameterised draws (``rsample``).
        phi: where, a floating tensor of any shape.
        noise: the law of ε.
        draws: how many, at least 3.
        seed: of the draws; the global state is restored.

    Returns:
        A ``GradientEstimate``.

    Raises:
        TypeError: if φ is not a floating tensor.
        ValueError: if z is discrete or otherwise not differentiable in φ (then ``score_gradient`` works), for fewer
            than 3 draws, or values of f that are not finite or not one for each draw.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*; Rezende, Mohamed & Wierstra (2014).

    Example:
        >>> import torch
        >>> from torch.distributions import Uniform
        >>> def weibull(phi, u):  # scale, shape
        ...     return phi[0] * (-torch.log1p(-u)) ** (1 / phi[1])
        >>> phi = torch.tensor([2.0, 1.0]).double()
        >>> gradient = reparameterised_gradient(lambda z: z, weibull, phi, Uniform(0.0, 1.0))
        >>> bool((gradient.value[0] - 1).abs() < 4 * gradient.stderr[0])  # the mean of an exponential is its scale
        True
    """
    _check(phi, draws)
    with _drawing(seed):
        if noise is None:
            law = g(phi.detach())
            if not isinstance(law, Distribution):
                raise TypeError(f"Without noise, g must return a torch distribution; got {type(law).__name__}.")
            if not law.has_rsample:
                raise ValueError(
                    f"A {type(law).__name__} cannot be reparameterised: its draws are not a differentiable function of "
                    "φ. Use score_gradient."
                )
            rows = phi.detach().expand(draws, *phi.shape).clone().requires_grad_()
            z = torch.stack([g(row).rsample() for row in rows])  # not by vmap, which cannot draw in place
        else:
            drawn = noise.sample((draws,))
            drawn = drawn.to(phi.dtype) if drawn.is_floating_point() else drawn
            rows = phi.detach().expand(draws, *phi.shape).clone().requires_grad_()
            z = torch.vmap(g)(rows, drawn)
        _check_differentiable(z)
        values = _values(f, z)
        (gradients,) = torch.autograd.grad(values.sum(), rows, allow_unused=True)
        if gradients is None:
            raise ValueError("g(φ, ε) does not depend on φ.")
        if noise is not None:
            _check_slope(f, g, rows.detach(), drawn, gradients, values.detach())
    return _estimate(gradients, "reparameterisation")


def _check_differentiable(z: Tensor) -> None:
    if not z.is_floating_point() or not z.requires_grad:
        raise ValueError(
            "g(φ, ε) has no derivative in φ: z is discrete, or was made by comparisons or rounding. A discrete z "
            "cannot be reparameterised; use score_gradient."
        )


def _check_slope(f: Function, g: Callable, rows: Tensor, noise: Tensor, gradients: Tensor, values: Tensor) -> None:
    """Refuse a gradient that is zero in each draw although the values change: rounding hides in g."""
    if bool((gradients != 0).any()):
        return
    with torch.no_grad():
        moved = f(torch.vmap(g)(rows + 0.1 * (1 + rows.abs()), noise))
    if not torch.equal(moved, values):
        raise ValueError(
            "g(φ, ε) has derivative zero in φ, but its values change: z is rounded or otherwise discrete. It cannot be "
            "reparameterised; use score_gradient."
        )


def _per_draw(log_q: Callable[[Tensor, Tensor], Tensor], phi: Tensor, z: Tensor) -> Tensor | None:
    """The gradient of log q(z_s; φ) for each draw, (n, *shape of φ), or None where there is none."""
    rows = phi.detach().expand(len(z), *phi.shape).clone().requires_grad_()
    total = torch.vmap(log_q)(rows, z).sum()
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, rows, allow_unused=True)[0]


def _values(f: Function, z: Tensor) -> Tensor:
    values = f(z)
    if not isinstance(values, Tensor) or values.shape != (len(z),):
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"f must return one value for each draw, shape ({len(z)},), from draws of shape {tuple(z.shape)}; got "
            f"{found}. Sum over the other dimensions."
        )
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"f must be finite; {bad} of {len(z)} values are not.")
    return values


def _check(phi: Tensor, draws: int) -> None:
    if not isinstance(phi, Tensor) or not phi.is_floating_point():
        raise TypeError(f"phi must be a floating torch tensor; got {getattr(phi, 'dtype', type(phi).__name__)}.")
    if not bool(torch.isfinite(phi).all()):
        raise ValueError(f"phi must be finite; {int((~torch.isfinite(phi)).sum())} of {phi.numel()} entries are not.")
    if not isinstance(draws, int) or draws < 3:
        raise ValueError(f"draws must be an integer of at least 3; got {draws!r}.")


def _estimate(gradients: Tensor, method: str) -> GradientEstimate:
    n, variance = len(gradients), gradients.var(0)
    return GradientEstimate(gradients.mean(0), (variance / n).sqrt(), variance, n, method)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Draw from a seed, without checks inside distributions (vmap cannot run them); both are put back."""
    before = Distribution._validate_args
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            Distribution.set_default_validate_args(before)

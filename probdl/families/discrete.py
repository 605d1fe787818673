"""Rows of zeros and ones, of one category among several, and of counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, OneHotCategorical, Poisson
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from probdl.families.conditional import Conditional, observed, summed


class BernoulliHead(Conditional):
    """Rows of zeros and ones with independent entries, given a network's logits.

    Args:
        network: (n, d) → x's shape (n, ...), the logits.

    Example:
        >>> import torch
        >>> head = BernoulliHead(torch.nn.Linear(2, 3).double())
        >>> head.log_prob(torch.ones(5, 3, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5])
    """

    def forward(self, given: Tensor) -> Independent:
        """Return p(· | given)."""
        logits = self.network(given)
        return Independent(Bernoulli(logits=logits, validate_args=False), logits.ndim - 1, validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, of its entries that are not NaN, (n,)."""
        x, there = observed(x)
        return -summed(binary_cross_entropy_with_logits(self.network(given), x, reduction="none"), there)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw of zeros and ones for each row of ``given``."""
        p = self.network(given).sigmoid()
        return (torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device) < p).to(p.dtype)


class CategoricalHead(Conditional):
    r"""Rows that say which of k categories it is, by zeros and a single one, given a network's logits.

    .. math:: \log p(x | z) = \sum_j x_j \log \mathrm{softmax}(a(z))_j

    Args:
        network: (n, d) → (n, k), the logits.

    Example:
        >>> import torch
        >>> head = CategoricalHead(torch.nn.Linear(2, 3))
        >>> head.draw(torch.zeros(5, 2), torch.Generator().manual_seed(0)).sum(1)
        tensor([1., 1., 1., 1., 1.])
    """

    def forward(self, given: Tensor) -> OneHotCategorical:
        """Return p(· | given)."""
        return OneHotCategorical(logits=self.network(given), validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given), (n,); 0 for a row of NaN."""
        return (observed(x)[0] * self.network(given).log_softmax(1)).sum(1)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``, zeros and a single one."""
        logits = self.network(given)
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        return one_hot(drawn, logits.shape[1]).to(logits.dtype)


class PoissonHead(Conditional):
    r"""Rows of counts with independent entries, :math:`\mathrm{Poisson}(r\,e^{a(z)})`.

    Args:
        network: (n, d) → x's shape (n, ...), the log of the rate in units of r.
        rate: r, of the shape of one row, such as the mean counts; ``network`` then starts near them.

    Example:
        >>> import torch
        >>> head = PoissonHead(torch.nn.Linear(2, 3), torch.tensor([1.0, 10.0, 100.0]))
        >>> head(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    log_rate: Tensor

    def __init__(self, network: nn.Module, rate: Tensor | Sequence[float] | float = 1.0) -> None:
        super().__init__(network)
        self.register_buffer("log_rate", torch.as_tensor(rate).log())

    def forward(self, given: Tensor) -> Independent:
        """Return p(· | given)."""
        rate = (self.network(given) + self.log_rate).exp()
        return Independent(Poisson(rate, validate_args=False), rate.ndim - 1, validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, of its entries that are not NaN, (n,)."""
        x, there = observed(x)
        log_rate = self.network(given) + self.log_rate
        return summed(x * log_rate - log_rate.exp() - torch.lgamma(x + 1), there)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw of counts for each row of ``given``."""
        return torch.poisson((self.network(given) + self.log_rate).exp(), generator=generator)

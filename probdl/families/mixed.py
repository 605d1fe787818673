"""A family for each group of columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from probdl.families.conditional import Conditional


class Part(NamedTuple):
    """Some entries of a row, the outputs of the network that give their parameters, and their family.

    Attributes:
        head: a family around ``nn.Identity()``: it gets those outputs, and gives those entries.
        entries: of a row, in order.
        outputs: of the network, in order.
    """

    head: Conditional
    entries: tuple[int, ...]
    outputs: tuple[int, ...]


class MixedHead(Conditional):
    r"""Rows whose groups of entries have families of their own, independent given z,

    .. math:: \log p(x | z) = \sum_g \log p_g(x_g | a(z)_g).

    Args:
        network: (n, d) → (n, outputs), the parameters of all entries.
        parts: which entries belong together; each entry of a row is in one of them.

    Example:
        >>> import torch
        >>> from probdl.families import BernoulliHead, NormalHead
        >>> numbers = Part(NormalHead(torch.nn.Identity()), (0, 2), (0, 2))
        >>> yes_or_no = Part(BernoulliHead(torch.nn.Identity()), (1,), (1,))
        >>> head = MixedHead(torch.nn.Linear(2, 3), [numbers, yes_or_no])
        >>> head.draw(torch.zeros(4, 2), torch.Generator().manual_seed(0))[:, 1].detach().unique()
        tensor([0., 1.])
    """

    def __init__(self, network: nn.Module, parts: Sequence[Part]) -> None:
        super().__init__(network)
        self.heads = nn.ModuleList(part.head for part in parts)
        self.entries = [list(part.entries) for part in parts]
        self.outputs = [list(part.outputs) for part in parts]

    def forward(self, given: Tensor) -> Joint:
        """Return p(· | given)."""
        return Joint([head(a) for head, _, a in self._parts(given)], self.entries)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, of its entries that are not NaN, (n,)."""
        return torch.stack([head.log_prob(x[:, of], a) for head, of, a in self._parts(given)]).sum(0)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``."""
        return _put([(of, head.draw(a, generator)) for head, of, a in self._parts(given)])

    @torch.no_grad()
    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Settle each part."""
        kept = [(x, self.network(given)) for x, given in pairs]
        for head, entries, outputs in self._groups():
            head.settle((x[:, entries], a[:, outputs]) for x, a in kept)

    def _groups(self) -> list[tuple[Conditional, list[int], list[int]]]:
        return list(zip(cast("list[Conditional]", list(self.heads)), self.entries, self.outputs))

    def _parts(self, given: Tensor) -> list[tuple[Conditional, list[int], Tensor]]:
        """Return each head, its entries, and the outputs of the network that are its."""
        a = self.network(given)
        return [(head, of, a[:, at]) for head, of, at in self._groups()]


class Joint(Distribution):
    """Independent distributions of groups of the entries of a row.

    Args:
        parts: of batch shape (n,), and event shape (k,) for k entries.
        entries: of a row, for each part; all of them together are 0, 1, ..., d - 1.

    Example:
        >>> import torch
        >>> from torch.distributions import Bernoulli, Independent, Normal
        >>> normal = Independent(Normal(torch.zeros(1, 2), 1.0), 1)
        >>> coin = Independent(Bernoulli(torch.full((1, 1), 0.5)), 1)
        >>> Joint([normal, coin], [[0, 2], [1]]).log_prob(torch.tensor([[0.0, 1.0, 0.0]]))  # -log(2 pi) - log 2
        tensor([-2.5310])
    """

    arg_constraints = {}

    def __init__(self, parts: Sequence[Distribution], entries: Sequence[Sequence[int]]) -> None:
        self.parts, self.entries = list(parts), [list(of) for of in entries]
        super().__init__(parts[0].batch_shape, torch.Size([sum(map(len, entries))]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of rows (..., d)."""
        return torch.stack([p.log_prob(value[..., of]) for p, of in zip(self.parts, self.entries)]).sum(0)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw rows by torch's global generator."""
        return _put([(of, p.sample(torch.Size(sample_shape))) for p, of in zip(self.parts, self.entries)])

    @property
    def mean(self) -> Tensor:
        """The mean of each entry; of a category its probability."""
        return _put([(of, p.mean) for p, of in zip(self.parts, self.entries)])


def _put(found: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Return groups of entries in the order of a row."""
    order = torch.tensor([entry for entries, _ in found for entry in entries]).argsort()
    return torch.cat([values for _, values in found], -1)[..., order.to(found[0][1].device)]

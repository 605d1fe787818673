"""Divergences between two distributions, each with its uncertainty and the method that gave it.

What you hold of the two picks the divergence and the method:

=========================  ==================================  =======================================================
you hold                   divergences                         methods, in the order of ``method="auto"``
=========================  ==================================  =======================================================
two distributions          kl, js, tv, hellinger2, chi2,       closed form; exact sum (discrete); quadrature (on the
                           renyi                               line and in the plane); Monte Carlo
two distributions, one     wasserstein, sliced_wasserstein,    closed form; exact sum; quadrature; Monte Carlo
of them perhaps discrete   sinkhorn, mmd2, energy
draws of both, perhaps     wasserstein, sliced_wasserstein,    sorting (on the line); exact transport; debiased
weighted                   sinkhorn                            Sinkhorn (above 5000 draws, from order 2)
draws of both, perhaps     mmd2, energy                        unbiased U-statistic; block averages (above 150,000
weighted                                                       draws)
draws of both              kl                                  nearest neighbours (to 3 columns); classifier
draws of both, perhaps     js, tv, hellinger2, chi2, renyi     classifier, on held-out draws: a lower bound
weighted
draws of both, perhaps     f_divergence, ipm                   critic, on held-out draws: a lower bound
weighted
a distribution and draws   all of these                        as for draws; the distribution is sampled, or its
                                                               density used (kl)
draws, and a log-density   ksd2; kl up to log Z                U-statistic; nearest neighbours
two batches, while         mmd2_loss, energy_loss, …           the same statistics, with gradients
training
=========================  ==================================  =======================================================

Each function returns an :class:`Estimate`; :func:`compare` puts several into one table, and :func:`two_sample_test`
asks whether two samples come from one distribution. :func:`transport_plan` says what goes where.

>>> from torch.distributions import Normal
>>> from probdl import divergences
>>> divergences.kl(Normal(0.0, 1.0), Normal(1.0, 2.0))
0.443147 ± 0 (closed form)

The rooms: ``f_divergences``, ``power_divergences``, ``metrics``, ``critics`` and ``compare`` hold the public functions,
``dispatch`` chooses the method, and the others compute: from densities ``closed``, ``gaussian``, ``powers``,
``quadrature``, ``plane`` and ``density``, from draws ``neighbours``, ``classifiers``, ``held_out``, ``kernels``,
``blocks``, ``stein``, ``sorting``, ``sliced``, ``transport``, ``plans``, ``debiased`` with ``entropic``, and
``permutations``.
"""

from probdl.divergences.compare import compare
from probdl.divergences.comparison import Comparison
from probdl.divergences.critics import f_divergence, f_divergence_loss, ipm
from probdl.divergences.debiased import sinkhorn, sinkhorn_loss
from probdl.divergences.estimate import Estimate
from probdl.divergences.f_divergences import hellinger2, js, kl, tv
from probdl.divergences.function_classes import BoundedCritic, KernelCritic, LipschitzCritic
from probdl.divergences.kernels import RBF, InverseMultiquadratic
from probdl.divergences.lipschitz import gradient_penalty
from probdl.divergences.losses import energy_loss, mmd2_loss
from probdl.divergences.metrics import energy, mmd2, wasserstein
from probdl.divergences.pareto import pareto_k
from probdl.divergences.permutations import TwoSampleTest, two_sample_test
from probdl.divergences.plans import transport_plan
from probdl.divergences.power_divergences import chi2, renyi
from probdl.divergences.sliced import sliced_wasserstein, sliced_wasserstein_loss
from probdl.divergences.stein import ksd2

__all__ = [
    "RBF",
    "BoundedCritic",
    "Comparison",
    "Estimate",
    "InverseMultiquadratic",
    "KernelCritic",
    "LipschitzCritic",
    "TwoSampleTest",
    "chi2",
    "compare",
    "energy",
    "energy_loss",
    "f_divergence",
    "f_divergence_loss",
    "gradient_penalty",
    "hellinger2",
    "ipm",
    "js",
    "kl",
    "ksd2",
    "mmd2",
    "mmd2_loss",
    "pareto_k",
    "renyi",
    "sinkhorn",
    "sinkhorn_loss",
    "sliced_wasserstein",
    "sliced_wasserstein_loss",
    "transport_plan",
    "tv",
    "two_sample_test",
    "wasserstein",
]

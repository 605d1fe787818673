"""The evidence lower bound of a Gaussian as an ordinary function, and its maximum.

- ``deterministic_vi`` (with ``gaussian_families``, ``vi_posterior``): from a family to a posterior.
- ``expectations``: exact where factors see affine projections, else on ``fixed_draws``.
- ``starts``, ``first_guess``, ``trust_region``: where Newton's method starts, and its steps.
- ``linear_response``, ``linear_response_gaussian``: the spread that mean field loses. ``advice``: what to know of it.
"""

r"""Free-form mean field, :math:`q_j \propto \exp E_{i \neq j} \log p(x, z)`, derived by evaluating the program.

- ``reading`` (with ``exponential``, ``indexing``, ``parts``, ``sequences``): each site's natural parameters as
  functions of the latents' values.
- ``probing``: what an array depends on. ``expected``, ``additive``, ``locations`` (with ``location_probes``): its
  expectation, as a multilinear function of the expected statistics of the factors. ``weights``: sums over entries and
  over discrete latents.
- ``factors``, ``projected``: the expected log-density of a site.
- ``blocks``, ``gaussian_block``, ``chain``, ``grid``: the factors q_j. ``layout``: which latents make up which.
- ``derive``, ``starts``, ``ascent``, ``acceleration``: from a program to its mean field, where it starts, its sweeps.
- ``approximation`` (with ``answers``, ``marginals``, ``family_marginals``, ``stored``), ``linear_response``,
  ``report``: the result.
"""

"""How far the rows that a model makes up are from held-out ones, and whether it only repeats its training rows.

``evaluate`` holds the public function, ``evaluation`` its result. What is passed becomes rows of one space in ``space``
(one form, units from the held-out rows). Each measure comes with its error and with what it would be for new draws of
the held-out law: ``distances`` takes the divergences and the classifier test from ``probdl.divergences``, ``balls``
has precision, recall, density and coverage, ``memory`` the distances to the training rows, ``likelihood`` the held-out
log-likelihood of the models that have one. ``halves`` gives the errors of measures that are no means of independent
terms.
"""

"""Many to one: a sequence and its label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.labels import Labels
from probdl.models.scores import Calibration, Proportion, calibration, proportion
from probdl.models.sequences.labelled import LabelledSequences
from probdl.models.sequences.saliency import saliency_of_steps


class SequenceClassifier(LabelledSequences):
    r"""Many to one: a recurrent network reads a sequence, and its last state gives the probabilities of the classes.

    .. math:: p(y = c | x_1, …, x_T) = \mathrm{softmax}_c(b + V h_T)

    Args:
        hidden: the size of the state.
        cell: "rnn", "lstm" or "gru".
        layers: of the network.
        bidirectional: whether it reads in both directions; then h has the forward state after the last step and the
            backward state after the first.
        embedding: the size of a step's vector: of a token (None: 64, or the number of tokens if that is smaller), or of
            an image (None: ``hidden``).
        channels: of the convolutions that look at images.
        words: whether strings are split at white space into words; else they are read as characters.
        rare: tokens that occur fewer times than this in ``fit``, and those that it did not see, are one unknown token;
            0: such a token is an error.
        standardise: frames, by "column" (each entry of a vector), "shared" (one shift and scale for all), "none";
            "auto": "column" for vectors and "shared" for images.
        max_length: steps of a sequence, at most; longer ones are an error. None: any number.
        dropout: the probability with which a number is dropped, in training, of what goes into the network, between
            its layers and out.
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine over the steps or epochs that ``fit`` is given.
        patience: epochs without a better validation loss until the fit stops; None: as many as make 1000 steps, at
            least 5.
        clip: the largest norm of the gradient, or None.
        dtype: of the network.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Example:
        >>> x = ["good day", "bad day", "good", "so bad", "no good day", "a bad one"] * 10
        >>> y = ["+", "-"] * 30
        >>> model = SequenceClassifier(16, words=True, learning_rate=1e-2).fit(x, y, epochs=20, progress=False)
        >>> model.predict(["so good", "bad one"]).tolist()
        ['+', '-']
    """

    def predict_proba(self, x: Any) -> Tensor:
        """Return the probability of each class for each sequence, (n, k), columns in the order of ``classes``.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        return self._log_probabilities(x, "predict_proba").exp()

    def predict(self, x: Any) -> Tensor | np.ndarray:
        """Return the most probable class of each sequence, (n,): a tensor, or a NumPy array where labels are text.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        return self._labels("predict").named(self._log_probabilities(x, "predict").argmax(1))

    def log_likelihood(self, x: Any, y: Any) -> Estimate:
        """Return log p(y | x) of each sequence's label, in nats; exact, given the fitted model.

        Args:
            x: sequences like those of ``fit``; only held-out ones say how good the model is.
            y: their labels, (n,).

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences or labels unlike those of ``fit``.
        """
        log_p, truth = self._scored(x, y, "log_likelihood")
        value = log_p.gather(1, truth[:, None])[:, 0]
        return Estimate(value, torch.zeros_like(value), "closed form", n=len(value))

    def accuracy(self, x: Any, y: Any) -> Proportion:
        """Return the share of sequences whose most probable class is right; its ``interval`` is Wilson's.

        Args:
            x, y: held-out sequences and their labels.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences or labels unlike those of ``fit``.
        """
        log_p, truth = self._scored(x, y, "accuracy")
        return proportion(log_p.argmax(1) == truth)

    def calibration(self, x: Any, y: Any, *, bins: int = 10, by: str = "width", of: Any = None) -> Calibration:
        """Compare probabilities with what happened: a table of bins, the calibration error, Brier score and log loss.

        Args:
            x, y: held-out sequences and their labels.
            bins: how many bins of confidence, at most.
            by: "width", bins of equal width; "count", between quantiles of the confidence.
            of: a class, whose probability is looked at; None: the most probable class of each sequence.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        log_p, truth = self._scored(x, y, "calibration")
        event = None if of is None else (int(self._labels("calibration").indices([of], name="of")), of)
        return calibration(log_p, truth, bins=bins, by=by, of=event)

    def saliency(self, x: Any, of: Any = None) -> list[Tensor]:
        r"""Return how much the logit S of a class changes with each step of each sequence.

        .. math:: \|dS/de_t\|_2 \;\text{(tokens with vectors } e_t), \qquad
                  \max_j |dS/dx_{tj}| \;\text{(frames, in the units of the network, standardised or not).}

        Args:
            x: sequences like those of ``fit``.
            of: the class; None: the most probable one of each sequence.

        Returns:
            A tensor (T,) for each sequence, as long as it is: padding has no part in it.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit`` or another class.

        Reference:
            Simonyan, Vedaldi & Zisserman (2014), Deep inside convolutional networks; for text, Li, Chen, Hovy &
            Jurafsky (2016), Visualizing and understanding neural models in NLP.

        Example:
            >>> model = SequenceClassifier(8).fit(["aab", "ba", "abb", "b"] * 5, [0, 1, 0, 1] * 5, steps=5)
            >>> [tuple(each.shape) for each in model.saliency(["aab", "b"])]
            [(3,), (1,)]
        """
        self._check_fitted("saliency")
        target = None if of is None else int(self._labels("saliency").indices([of], name="of"))
        rows, lengths = self._rows(x)
        return saliency_of_steps(self, self._logits, rows, lengths, target)

    def _learn_labels(self, y: Any) -> Labels:
        return Labels.of(y)

    def _targets(self, y: Any, lengths: Tensor, name: str) -> Tensor:
        return self._labels("this").indices(y, len(lengths), name)

    def _logits(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.out(self.reader.last(x, lengths))

    def _log_probabilities(self, x: Any, what: str) -> Tensor:
        """Return log p of each class for each sequence, (n, k), in float64."""
        self._check_fitted(what)
        return torch.cat(list(self._log_p(*self._rows(x))))

    def _scored(self, x: Any, y: Any, what: str) -> tuple[Tensor, Tensor]:
        """Return the log probabilities of sequences, and the indices of their labels."""
        log_p = self._log_probabilities(x, what)
        return log_p, self._labels(what).indices(y, len(log_p))

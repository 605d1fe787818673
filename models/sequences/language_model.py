"""The distribution of a text, token after token."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, one_of
from probdl.models.held_out import FEWEST
from probdl.models.network_model import NetworkModel, Training
from probdl.models.networks import is_small_step
from probdl.models.sequences.blocks import block_mean
from probdl.models.sequences.reader import CELLS, Reader, checked_dropout
from probdl.models.sequences.saliency import saliency_of_steps
from probdl.models.sequences.streams import OTHER, lanes, windows
from probdl.models.sequences.texts import as_texts, divided, read
from probdl.models.sequences.vocabulary import Vocabulary, padded
from probdl.nn import seeded
from probdl.nn.recurrent import State
from probdl.processes import chosen_device

STEPS = 3_000
STRETCH = 1024  # tokens of a text that are scored at a time, at most
SCORES = 2**24  # probabilities that are held at a time
CHUNK = 64  # texts that are scored side by side


class LanguageModel(NetworkModel):
    r"""The distribution of a text, each token given all before it, by a recurrent network.

    .. math:: p(x_2, …, x_n | x_1) = \prod_{t=1}^{n-1} p(x_{t+1} | h_t), \quad
        p(\cdot | h_t) = \mathrm{softmax}(c + V h_t)

    Training is truncated back-propagation through time: the text is read in parallel streams, window after window;
    a window starts with the state that the one before it ended with, and gradients stay within the window. (Windows in
    random order, each from a state of zeros, lost .08 nats a character on the manual of Python.)

    Args:
        hidden: the size of the state.
        cell: "rnn", "lstm" or "gru".
        layers: of the network.
        embedding: the size of a token's vector; None: 64, or the number of tokens if that is smaller.
        words: whether strings are split at white space into words; else they are read as characters.
        rare: tokens that occur fewer times than this in ``fit``, and those that it did not see, are one unknown token;
            0: such a token is an error. Likelihoods are then those of texts with that token in them.
        dropout: the probability with which a number is dropped, in training, of what goes into the network, between
            its layers and out.
        window: tokens through which gradients go back.
        learning_rate: of Adam, its largest.
        decay: whether it falls to zero along half a cosine over the steps or epochs of ``fit``.
        patience: epochs without a better validation loss until the fit stops; None: as many as make 1000 steps, at
            least 5.
        clip: the largest norm of the gradient, or None.
        dtype: of the network.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Mikolov et al. (2010), Recurrent neural network based language model, Interspeech; Williams and Peng (1990), An
        efficient gradient-based algorithm for on-line training of recurrent network trajectories, Neural Computation 2.

    Example:
        >>> model = LanguageModel(hidden=16, learning_rate=1e-2).fit("abcd" * 200, steps=100, progress=False)
        >>> model.generate(6, prefix="ab", temperature=0.1)
        'abcdabcd'
        >>> model.nats("abcd" * 50).value < 0.05
        True
    """

    SETTINGS = (
        "hidden",
        "cell",
        "layers",
        "embedding",
        "words",
        "rare",
        "dropout",
        "window",
        "learning_rate",
        "decay",
        "patience",
        "clip",
    )
    carried: Tensor
    frequencies: Tensor

    def __init__(
        self,
        hidden: int = 128,
        *,
        cell: str = "lstm",
        layers: int = 1,
        embedding: int | None = None,
        words: bool = False,
        rare: int = 0,
        dropout: float = 0.0,
        window: int = 64,
        learning_rate: float = 3e-3,
        decay: bool = True,
        patience: int | None = None,
        clip: float | None = 5.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({}, dtype)
        self.hidden, self.layers, self.window = (
            count(value, name) for value, name in ((hidden, "hidden"), (layers, "layers"), (window, "window"))
        )
        self.embedding = None if embedding is None else count(embedding, "embedding")
        self.patience = None if patience is None else count(patience, "patience")
        self.cell, self.words = one_of(cell, [*CELLS], "cell"), bool(words)
        self.rare, self.dropout = count(rare, "rare", least=0), checked_dropout(dropout)
        self.learning_rate, self.decay, self.clip = learning_rate, decay, clip
        self.vocabulary: Vocabulary | None = None

    def fit(
        self,
        x: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        validation: Any = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        progress: bool | None = None,
        precision: str | None = None,
        checkpoint: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> LanguageModel:
        """Fit to a text, or to several, anew each time.

        Args:
            x: a string, or a list or array of whole numbers; or a list of texts: strings, or lists of tokens.
            epochs, steps: how long at most; None: 3,000 steps.
            batch_size: streams that are read side by side; None: 32. Of texts no longer than a window: texts in a step.
            validation: "auto" keeps the last tenth of the text back (of each of several texts; of 20 texts or more, a
                tenth of them at random), and returns to the epoch with the smallest loss there; a fraction; a text or
                texts of your own; or None.
            device: where to compute; "auto": a GPU if there is one, else the CPU.
            seed: of the initial weights, the texts kept back, and dropout.
            progress: whether to show a bar; None: where stderr is a terminal.
            precision: "bf16" or "fp16" computes in mixed precision, as ``descend`` does.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. ``history`` has a row an epoch, its losses in nats a token; ``message`` says how
            the fit ended. Ctrl-C stops it with a ``ConvergenceWarning`` and keeps what was learnt.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
            ConvergenceError: if the loss becomes NaN or infinite; the model has its last good state.
        """
        texts = as_texts(x)
        vocabulary = Vocabulary.of(texts, "x", self.rare, words=self.words)
        train, held = divided(vocabulary, texts, validation, seed)
        size = 32 if batch_size is None else count(batch_size, "batch_size")
        streams = lanes(train, self.window, size)
        rows = windows(train, self.window, streams or size)
        size = streams or min(size, len(rows.tokens))
        held_rows = None if held is None else windows(held, self.window, size)
        self._assemble(vocabulary, seed)
        self._begin_with(train)
        device = chosen_device(device, None)
        self.to(device)
        self._carry(streams, size)
        try:
            self._train_in_batches(
                self._loss,
                tuple(t.to(device) for t in rows),
                None if held_rows is None else tuple(t.to(device) for t in held_rows),
                Training(epochs, steps, size, seed, progress, checkpoint, resume),
                one=is_small_step(device, size, self.hidden),
                most=STEPS,
                shuffle=not streams,
                precision=precision,
            )
        finally:
            self._carry(0)
        return self

    def log_likelihood(self, x: Any) -> Estimate:
        """Return log p of each text's tokens 2, …, n given the first, in nats; exact, given the model.

        Args:
            x: a string, or a list of texts; only held-out text says how good the model is.

        Returns:
            Value of shape (n,), a sum for each text.

        Raises:
            ValueError, TypeError: before ``fit``, or for texts that cannot be used; tokens that ``fit`` did not see are
                named.
        """
        value = torch.stack([log_p.sum() for log_p in self.token_log_likelihood(x)])
        return Estimate(value, torch.zeros_like(value), "closed form", n=len(value))

    def token_log_likelihood(self, x: Any) -> list[Tensor]:
        """Return log p of each token from the second on, given all before it in its text, (T_i − 1,), in nats.

        Args:
            x: a string, or a list of texts.

        Raises:
            ValueError, TypeError: as ``log_likelihood``.
        """
        texts = read(self._known("token_log_likelihood"), x)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        with self._quietly():
            for some in (order[at : at + CHUNK] for at in range(0, len(order), CHUNK)):
                log_p = self._scores([texts[i] for i in some])
                for i, row in zip(some, log_p):
                    found[i] = row[: len(texts[i]) - 1]
        return found

    def nats(self, x: Any) -> Estimate:
        r"""Return the mean of −log p(token | those before it) over all tokens but each text's first, in nats.

        The standard error, by means of blocks of neighbours, respects that neighbouring tokens are alike; it is that of
        this model's nats on further text of the same source.

        Args:
            x: held-out text: a string, or a list of texts.

        Raises:
            ValueError, TypeError: as ``log_likelihood``, or for texts without a second token.
        """
        log_p = self.token_log_likelihood(x)
        if not any(map(len, log_p)):
            raise ValueError("x must hold a text of two tokens or more: the first is given, not predicted.")
        return block_mean([-values for values in log_p], "tokens")

    def perplexity(self, x: Any) -> Estimate:
        """Return exp(``nats``): among how many equally probable tokens the model is as uncertain; delta method.

        Args:
            x: held-out text: a string, or a list of texts.

        Raises:
            ValueError, TypeError: as ``nats``.
        """
        nats = self.nats(x)
        value = math.exp(float(nats))
        stderr = None if nats.stderr is None else value * float(nats.stderr)
        return Estimate(value, stderr, "block means, delta method", n=nats.n, notes=nats.notes)

    def generate(self, n: int, prefix: Any = "", *, temperature: float = 1.0, seed: int = 0) -> Any:
        r"""Draw a text of n tokens after a prefix, each from :math:`p(\cdot | \text{before})^{1/τ}`, normalised.

        Args:
            n: how many tokens.
            prefix: what the text begins with, a string or a list of tokens as in ``fit``. Without it, the first token
                is drawn from those that began the texts of ``fit`` or, of fewer than 20, from all their tokens.
            temperature: τ > 0; small values keep to what is most probable.
            seed: of the draws.

        Returns:
            The prefix and what follows, a string or a list of tokens.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        vocabulary, left = self._known("generate"), count(n, "n")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be a positive number; got {temperature!r}.")
        found = [] if isinstance(prefix, (str, list)) and not prefix else vocabulary.indices([prefix], "prefix")[0]
        noise = self._noise(seed)
        with self._quietly():
            if not found:
                found, left = [_draw(self.frequencies.log(), temperature, noise)], left - 1
            logits, state = self._next(torch.tensor([found], device=self._device), None)
            for _ in range(left):
                found.append(_draw(logits[0, -1], temperature, noise))
                logits, state = self._next(torch.tensor([found[-1:]], device=self._device), state)
        return vocabulary.sequence(found)

    def saliency(self, x: Any, of: Any = None) -> list[Tensor]:
        r"""Return how much the logit S of the token that comes next changes with each token of a text.

        .. math:: \|dS/de_t\|_2, \quad e_t \text{ the vector of the token at } t.

        Args:
            x: a string, or a list of texts; what comes next is what follows their last token.
            of: the token that comes next; None: the most probable one of each text.

        Returns:
            A tensor (T,) for each text, as long as it is.

        Raises:
            ValueError, TypeError: before ``fit``, or for texts or a token unlike those of ``fit``.

        Example:
            >>> model = LanguageModel(hidden=8).fit("abcd" * 50, steps=5, progress=False)
            >>> [tuple(each.shape) for each in model.saliency(["abc", "d"], of="a")]
            [(3,), (1,)]
        """
        vocabulary = self._known("saliency")
        target = None if of is None else vocabulary.indices([of if vocabulary.text else [of]], "of")[0]
        if target is not None and len(target) != 1:
            raise ValueError(f"of must be one token; got {of!r}.")
        texts = padded(read(vocabulary, x))
        return saliency_of_steps(self, self._scores_next, *texts, None if target is None else target[0])

    def _scores_next(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits (n, tokens) of what follows the last token of each text."""
        logits, _ = self._next(tokens, None)
        return logits[torch.arange(len(logits), device=logits.device), lengths.to(logits.device) - 1]

    def _next(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the logits (n, T, tokens) of what follows each token, and the state after the last."""
        h, state = self.reader(tokens, None, state)
        return self.out(h), state

    def _loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Return the nats of a batch of windows a token, and carry the states on."""
        tokens, targets, first, stream, weight = batch
        carried = self.carried if self.training else self._held
        state = None
        if carried.shape[2]:
            state = self._as_state(carried[:, :, stream] * ~first[:, None])
        else:  # short texts, each from a state of zeros
            width = int((targets != OTHER).sum(1).max())
            tokens, targets = tokens[:, :width], targets[:, :width]
        logits, state = self._next(tokens, state)
        if carried.shape[2]:
            parts = state if isinstance(state, tuple) else (state,)
            carried[:, :, stream] = torch.stack(parts).detach().to(carried.dtype)
        nats = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=OTHER, reduction="none")
        return (nats.view_as(targets).sum(1) * weight.to(nats.dtype)).mean()

    def _as_state(self, parts: Tensor) -> State:
        return (parts[0], parts[1]) if self.cell == "lstm" else parts[0]

    def _scores(self, texts: Sequence[Tensor]) -> Tensor:
        """Return log p of each next token, (n, T − 1), in float64 on the CPU; what stands at padding does not count."""
        tokens = padded(texts)[0].to(self._device)
        state, found = None, []
        stretch = max(1, min(STRETCH, SCORES // (len(tokens) * self.out.out_features)))
        for at in range(0, tokens.shape[1] - 1, stretch):
            targets = tokens[:, at + 1 : at + stretch + 1]
            logits, state = self._next(tokens[:, at : at + targets.shape[1]], state)
            found.append(-cross_entropy(logits.double().transpose(1, 2), targets, reduction="none").cpu())
        return torch.cat(found, 1) if found else torch.zeros(len(texts), 0, dtype=torch.float64)

    def _assemble(self, vocabulary: Vocabulary, seed: int) -> None:
        """Build the networks anew."""
        self.vocabulary, size = vocabulary, len(vocabulary)
        embedding = min(64, size) if self.embedding is None else self.embedding
        with seeded(seed):
            steps = nn.Embedding(size, embedding)
            self.reader = Reader(
                steps, embedding, self.hidden, cell=self.cell, layers=self.layers, dropout=self.dropout
            )
            self.out = nn.Linear(self.hidden, size)
        self.register_buffer("frequencies", torch.full((size,), 1 / size, dtype=torch.float64))
        self._carry(0)
        self.to(self.dtype)

    def _begin_with(self, texts: Sequence[Tensor]) -> None:
        """Learn how texts begin."""
        begin = torch.stack([text[0] for text in texts]) if len(texts) >= FEWEST else torch.cat(list(texts))
        counts = torch.bincount(begin, minlength=len(self.frequencies))
        self.frequencies = (counts / counts.sum()).to(self.frequencies)

    def _carry(self, streams: int, held: int = 0) -> None:
        """Make room for the states that windows hand on; those of training are a buffer, which checkpoints hold."""
        parts = 2 if self.cell == "lstm" else 1
        zeros = torch.zeros(parts, self.layers, streams + held, self.hidden).to(self.out.weight)
        self.register_buffer("carried", zeros[:, :, :streams].clone())
        self._held = zeros[:, :, streams:]

    def _known(self, what: str) -> Vocabulary:
        """Return the vocabulary of a fitted model, or raise."""
        self._check_fitted(what)
        assert self.vocabulary is not None
        return self.vocabulary

    def _found(self) -> dict[str, Any]:
        assert self.vocabulary is not None
        return {"vocabulary": self.vocabulary.to_json()}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self._assemble(Vocabulary.from_json(found["vocabulary"]), seed=0)


def _draw(logits: Tensor, temperature: float, noise: torch.Generator) -> int:
    """Draw a token."""
    return int(torch.multinomial((logits.double() / temperature).softmax(0), 1, generator=noise))

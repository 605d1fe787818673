"""Maps on the input: derivatives of a score, plain or rewritten at the ReLUs.

Guided and deconvolved maps are sharp partly because they recover edges of the image: much of them does not depend on
the weights of the upper layers (Adebayo et al., 2018). The plain gradient, :func:`saliency`, does.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from probdl.viz.seeing.graph import deconvolved, derivative, guided
from probdl.viz.seeing.layers import as_tokens
from probdl.viz.seeing.scores import of_channel, of_class, of_unit
from probdl.viz.seeing.tokens import token_derivative


def saliency(model: nn.Module, x: Any, target: Any = None, reduce: str | None = "max") -> Tensor:
    r"""Return how much the score of a class changes with each pixel, max over channels of :math:`|dS_c/dx|`.

    Tokens, integers that an ``nn.Embedding`` of the model takes, have no derivative; the vectors :math:`e_t` that stand
    for them have. Their coordinates mean nothing one by one, so that the Euclidean norm :math:`\|dS_c/de_t\|` says how
    much the score changes with the token at t. ``SequenceClassifier`` and ``LanguageModel``, which take texts of
    different lengths, have a ``saliency`` of their own that returns it.

    Args:
        model: any torch module that returns scores (logits) of shape (n, classes), or (n,) for one of them. One that
            takes more than x, as lengths, is wrapped in a module of one argument. Of one that returns probabilities
            pass the part before the softmax: they saturate, and their derivatives vanish.
        x: inputs of shape (n, ...), converted to the dtype of the model, or tokens (n, time). All rows are held at
            once; of many, pass ``x.split(256)`` part by part.
        target: the class c, or a tensor with one for each row; None: the class that scores most.
        reduce: "max" takes absolute values and their maximum over the channels, or of tokens the norm; None returns
            the derivative itself.

    Returns:
        Tensor of shape (n, height, width) for images (n, channels, height, width), (n, time) for sequences
        (n, time, features) and tokens (n, time), the absolute values (n, d) for vectors; of the shape of ``x`` if
        ``reduce`` is None, for tokens (n, time, size of their vectors).

    Raises:
        TypeError: if ``model`` is no module, ``x`` does not hold numbers, or ``target`` no integers.
        ValueError: for empty or infinite ``x``, a ``target`` out of range, another ``reduce``, scores of another
            shape or without a derivative, a reentrant checkpoint in the model, or tokens that no embedding reads as
            they are.

    Reference:
        Simonyan, Vedaldi & Zisserman (2014), Deep inside convolutional networks.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.constant_(model.weight, -3.0)
        >>> saliency(model, torch.ones(1, 2))
        tensor([[3., 3.]])
        >>> words = torch.nn.Sequential(torch.nn.Embedding(5, 2), torch.nn.Flatten(), torch.nn.Linear(6, 2))
        >>> saliency(words, torch.tensor([[4, 0, 1]])).shape
        torch.Size([1, 3])
    """
    if reduce not in ("max", None):
        raise ValueError(f'reduce must be "max" or None; got {reduce!r}.')
    tokens = as_tokens(model, x) if isinstance(model, nn.Module) else None
    if tokens is not None:
        vectors = token_derivative(model, tokens, of_class(target))
        return vectors if reduce is None else vectors.norm(dim=-1)
    gradient = derivative(model, x, of_class(target))
    if reduce is None:
        return gradient
    size = gradient.abs()
    return size if size.ndim == 2 else size.amax(2 if size.ndim == 3 else 1)


def guided_backprop(model: nn.Module, x: Any, target: Any = None, layer: str | None = None, unit: Any = None) -> Tensor:
    r"""Return the derivative of a score or a unit, with only what is positive passed down at active ReLUs.

    Below a ReLU of input u the derivative g becomes :math:`\max(g, 0) \, 1[u > 0]`.

    Args:
        model: any torch module with ReLUs, however they are written.
        x: inputs of shape (n, ...), converted to the dtype of the model.
        target: the class, as for :func:`saliency`, if no ``layer`` is given.
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them, to ask for a unit of it.
        unit: its index in the layer without the batch: an integer, or several as (channel, row, column); or a tensor
            with such an index for each row.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        TypeError: if ``model`` is no module, ``x`` does not hold numbers, or ``target`` or ``unit`` no integers.
        ValueError: if no ReLU is found or one could hide (in compiled, scripted or reentrantly checkpointed parts,
            custom functions, ``clamp(min=0)``, operations in place on views), for an unknown layer, indices out of
            range, ``target`` together with ``layer``, or one of ``layer`` and ``unit`` without the other.

    Warns:
        UserWarning: of activations that resemble a ReLU and keep their own derivative, and of masks with a value for
            each element, which may be a ReLU that is written out, as ``x * (x > 0)`` or ``torch.where(x > 0, x, 0)``.
            A ReLU as ``(x + x.abs()) / 2`` leaves no trace, and keeps its own derivative unseen.

    Reference:
        Springenberg, Dosovitskiy, Brox & Riedmiller (2015), Striving for simplicity. About what the maps do not
        show: Adebayo et al. (2018), Sanity checks for saliency maps.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = torch.nn.init.ones_(model[0].weight)
        >>> _ = model[2].weight.data.copy_(torch.tensor([[3.0, -2.0]]))
        >>> x = torch.tensor([[2.0]])
        >>> guided_backprop(model, x), saliency(model, x)  # the negative part does not come down
        (tensor([[3.]]), tensor([[1.]]))
    """
    if (layer is None) != (unit is None):
        raise ValueError(f"layer and unit must be given together; got layer={layer!r} and unit={unit!r}.")
    if layer is not None and target is not None:
        raise ValueError(f"target must be None where a unit of a layer is asked for; got {target!r}.")
    score = of_class(target) if layer is None else of_unit(layer, unit)
    return derivative(model, x, score, guided)


def deconvnet(model: nn.Module, x: Any, layer: str, unit: Any) -> Tensor:
    r"""Return a unit projected back to the input by a deconvolutional network.

    A ReLU passes :math:`\max(g, 0)` down whatever its input was; convolutions are transposed, and max-pools put values
    back where the maxima were. The unit is set to 1; for Zeiler and Fergus's picture multiply by its activation.

    Args:
        model: any torch module with ReLUs, however they are written.
        x: inputs of shape (n, ...), converted to the dtype of the model.
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them; "output" for the scores.
        unit: its index in the layer without the batch, as for :func:`guided_backprop`.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        TypeError: if ``model`` is no module, ``x`` does not hold numbers, or ``unit`` no integers.
        ValueError: if no ReLU is found or one could hide, for an unknown layer or indices out of range.

    Warns:
        UserWarning: as :func:`guided_backprop` does.

    Reference:
        Zeiler & Fergus (2014), Visualizing and understanding convolutional networks.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
        >>> _ = torch.nn.init.ones_(model[0].weight), torch.nn.init.ones_(model[2].weight)
        >>> deconvnet(model, torch.tensor([[-5.0]]), "output", 0)  # the ReLU is not active, and passes it on
        tensor([[1.]])
    """
    return derivative(model, x, of_unit(layer, unit), deconvolved)


def channel_gradient(model: nn.Module, x: Any, layer: str, channel: Any) -> Tensor:
    r"""Return the derivative of the mean of a channel, :math:`\frac{1}{|N|} \sum_{j \in N} da_{cj} / dx`.

    Args:
        model: any torch module.
        x: inputs of shape (n, ...), converted to the dtype of the model.
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them.
        channel: the channel c, or a tensor with one for each row. In a layer without maps it is a unit.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        TypeError: if ``model`` is no module, ``x`` does not hold numbers, or ``channel`` no integers.
        ValueError: for an unknown layer, a channel out of range, or a layer that is not differentiable in x.

    Reference:
        Yosinski et al. (2015), Understanding neural networks through deep visualization.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1))
        >>> _ = torch.nn.init.constant_(model[0].weight, 6.0)
        >>> channel_gradient(model, torch.zeros(1, 1, 3), "0", 0)
        tensor([[[2., 2., 2.]]])
    """
    return derivative(model, x, of_channel(layer, channel))

"""Seeing what a network learned: numbers about any torch module, to be drawn by ``probdl.viz.show``.

- ``layers``: names and sizes of the layers, their ``activations`` and ``filters``.
- ``maps``: derivatives of a score with respect to the input: ``saliency``, ``guided_backprop``, ``deconvnet``,
  ``channel_gradient``; ``scores`` says what is asked about, ``graph`` rewrites derivatives at the ReLUs, ``tokens``
  takes them by the vectors of tokens.
- ``occlusion``: the drop of a score with a window covered.
- ``adversarial``: the smallest change that makes one class another; ``attack`` is Szegedy's on one input.
- ``synthesis``: the input that maximises a score or a unit; ``ascent`` climbs.
- ``randomization``: whether maps survive when the model is drawn anew, layer by layer; ``cascade`` does that.
- ``classes``: scores and classes, checked.
- ``patches``: what drives a channel most, ``top_patches``, with ``fields``, the boxes that its units see.
- ``neighbours``: the ``nearest`` inputs in a layer; ``batches`` of many inputs.
- ``sparse``: ``sparse_filters`` of images, which a network's are seen beside.
- ``unchanged``: a model is looked at in eval mode and left as it was; ``refusal`` names the module that refuses x.

No function changes the model: derivatives come from ``torch.autograd.grad``, and training flags, buffers,
``requires_grad``, ``.grad`` and hooks are as before when a function returns or raises. A further function of the room
opens ``unchanged(model)``, copies its input by ``as_input`` and finds layers by ``held``.
"""

"""Seeing what a network learned: numbers about any torch module, to be drawn by ``probdl.viz.show``.

No function changes the model: it runs in eval mode, derivatives come from ``torch.autograd.grad``, and training flags,
buffers, ``requires_grad``, ``.grad`` and hooks are as before when a function returns or raises.
"""

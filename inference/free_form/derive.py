"""From a program to its mean field: conjugate where it can be, on grids or by natural gradients where it cannot."""

from __future__ import annotations

from probdl.inference.free_form.ascent import FreeForm
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.layout import chains
from probdl.inference.free_form.probing import NotConjugate
from probdl.inference.free_form.projected import is_projected
from probdl.inference.free_form.reading import Reading, typical_values
from probdl.inference.free_form.sequences import join_sequences
from probdl.inference.programs.program import Program
from probdl.inference.propagation.factors import NotApplicable


def derive(program: Program, conjugate_only: bool = False) -> FreeForm:
    """Return the free-form mean field of a program.

    Each factor is first taken as conjugate. Where probing finds that it is not, an observed factor of Gaussian latents
    gets natural-gradient sites, and a scalar latent of any other factor a density on a grid.

    Args:
        program: the program.
        conjugate_only: raise where a factor is not conjugate.

    Raises:
        NotApplicable: if a factor fits neither; it names the site.
    """
    grids: frozenset[str] = frozenset()
    projected: frozenset[str] = frozenset()
    typical = typical_values(program)
    reading = read(program, grids)
    while True:
        try:
            field = FreeForm(reading, typical, projected)
        except NotConjugate as reason:
            site = reading.sites[reason.site]
            gaussian = set(reading.gaussian_latents)
            if not conjugate_only and is_projected(reading, site, gaussian) and site.name not in projected:
                projected |= {site.name}
                continue
            latent = _scalar_at_fault(reading, reason, grids)
            if latent is None or conjugate_only:
                raise NotApplicable(
                    f"Coordinate ascent: {reason}. Rewrite it in conjugate form, or use method='meanfield' or 'nuts'."
                ) from reason
            grids |= {latent}
            reading = read(program, grids)
            continue
        if conjugate_only and field.has_grids():
            names = ", ".join(n for b in field.blocks if isinstance(b, GridBlock) for n in b.names)
            raise NotApplicable(f"Coordinate ascent: the priors of {names} are of no conjugate family.")
        return field


def read(program: Program, grids: frozenset[str] = frozenset()) -> Reading:
    """Return the program's sites, those that repeat along a chain of discrete latents as one."""
    reading = Reading(program, grids)
    join_sequences(reading, chains(reading))
    return reading


def _scalar_at_fault(reading: Reading, reason: NotConjugate, grids: frozenset[str]) -> str | None:
    """The latent that may go on a grid: one whose entries are scalars, and which is not on one yet."""
    latent = reading.program.latents.get(reason.latent)
    if latent is None or not reason.grid or reason.latent in grids or not latent.is_elementwise():
        return None
    return reason.latent

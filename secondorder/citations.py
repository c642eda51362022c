"""BibTeX entries of the papers behind each method."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

PAPERS = Path(__file__).with_name("citations.bib")

# As in the docstrings.
OF_METHODS = {
    "adahessian": ("yao2021",),
    "bfgs": ("nocedal2006",),
    "cubic_newton": ("nesterov2006", "cartis2011"),
    "dogleg": ("powell1970", "nocedal2006"),
    "ekfac": ("george2018",),
    "gauss_newton": ("nocedal2006", "schraudolph2002"),
    "gradient_descent": ("nocedal2006",),
    "hessian_free": ("martens2010", "martens2012"),
    "hybrid_newton": ("fletcher1987", "more1983"),
    "kfac": ("martens2015", "eschenhagen2023"),
    "kl_shampoo": ("lin2025",),
    "kl_soap": ("lin2025", "vyas2024"),
    "layerwise_gauss_newton": ("abreu2025", "martens2015"),
    "lbfgs": ("liu1989", "nocedal2006"),
    "levenberg_marquardt": ("more1978", "nielsen1999", "transtrum2012"),
    "natural_gradient": ("amari1998", "muller2023", "goldshlager2024", "transtrum2012"),
    "newton": ("nocedal2006",),
    "newton_cg": ("steihaug1983", "nocedal2006"),
    "scale_by_quadratic_model": ("martens2015",),
    "shampoo": ("gupta2018", "anil2020", "shi2023"),
    "soap": ("vyas2024",),
    "sophia": ("liu2023",),
    "sr1": ("conn1991", "nocedal2006"),
    "ssbfgs": ("albaali1998", "urban2025"),
    "ssbroyden": ("albaali2014", "urban2025"),
    "trust_region_newton": ("more1983", "nocedal2006"),
}


def citation(method: str | Callable) -> str:
    """BibTeX entries of a method's papers and of this library.

    Args:
      method: a method or its name, such as ``"kfac"``, ``secondorder.kfac`` or
        ``Solution.method``.

    Raises:
      ValueError: a name that is no method's.

    Example:
      >>> import secondorder as so
      >>> print(so.citation("soap").splitlines()[0])
      @misc{vyas2024,
    """
    name = method if isinstance(method, str) else getattr(method, "__name__", "")
    if name not in OF_METHODS:
        raise ValueError(
            f"citation got method={method!r}; pass one of {', '.join(OF_METHODS)}, by name or as "
            "the function itself."
        )
    papers = entries()
    return "\n\n".join(papers[key] for key in (*OF_METHODS[name], "secondorder"))


def entries() -> dict[str, str]:
    """The BibTeX entries of all papers, by key."""
    texts = PAPERS.read_text(encoding="utf-8").strip().split("\n\n")
    return {re.match(r"@\w+{(\w+),", text)[1]: text for text in texts}  # pyright: ignore[reportOptionalSubscript]

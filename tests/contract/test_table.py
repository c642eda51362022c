"""The table itself: who is in it, and who stands for the others."""

from contract.table import METHODS, REPRESENTATIVES

import secondorder as so


def test_every_method_has_a_row():
    rows = {method.factory for method in METHODS.values()}
    rows |= {so.scale_by_quadratic_model}  # takes a transformation: its row is of Adam's
    assert [name for name in so.methods.__all__ if getattr(so, name) not in rows] == []


def test_the_representatives_are_of_every_kind():
    kinds = "flags", "live", "closed_loop", "plain", "matrix_free", "by_leaf", "gradients_alone"
    for kind in kinds:
        of = lambda names: {bool(getattr(METHODS[name], kind)) for name in names}  # noqa: B023
        assert of(REPRESENTATIVES) == of(METHODS) == {True, False}, kind

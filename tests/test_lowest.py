"""The lowest versions allowed are those of pyproject.toml, in the words of pip."""

import tomllib

import lowest
import pytest


def test_every_requirement_has_a_lowest_version():
    project = tomllib.loads(lowest.PROJECT.read_text())["project"]
    found = lowest.constraints(project["dependencies"])
    assert {each.split("==")[0] for each in found} >= {"jax", "jaxlib", "optax"}
    assert lowest.constraints(["jax>=0.10"]) == ["jax==0.10"]


@pytest.mark.parametrize("requirement", ["jax", "jax>=0.10,<1", "jax[cuda]>=0.10", "jax<1"])
def test_a_requirement_without_a_plain_lowest_version_is_refused(requirement):
    with pytest.raises(ValueError, match="write name>=version"):
        lowest.constraints([requirement])

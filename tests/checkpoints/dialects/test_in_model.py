import pytest

from ntk_propulsion.checkpoints import describe_dialect
from tests.checkpoints.public import in_model_state


def test_several_in_model_vectors_of_a_layer_are_one_place_with_a_product():
    _, state = in_model_state("deberta", vectors=12)
    dialect = describe_dialect(state)
    assert dialect.pooling == "product"
    query = dialect.scalings["deberta.encoder.layer.0.attention.self.query_proj"]
    stem = "deberta.encoder.layer.0.attention.self.propulsion_query"
    assert query.keys == tuple(f"{stem}.{i}" for i in range(12))


def test_in_model_keys_that_the_public_files_do_not_have_are_unknown():
    names = ["roberta.x.propulsion_unheard", "roberta.y.propulsion_dense", "roberta.x.weight"]
    assert describe_dialect(names).unknown == tuple(names[:2])


@pytest.mark.parametrize("degree", [0, -3, 1.5, True, "15", None, float("nan"), [15]])
def test_a_degree_that_cannot_be_one_is_unknown(degree):
    names = ["roberta.encoder.layer.0.attention.self.propulsion_query"]
    assert describe_dialect(names, config={"degree": degree}).degree is None

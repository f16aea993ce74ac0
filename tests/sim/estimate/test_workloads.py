"""Shapes of whole models: the table of the papers' models, and shapes that cannot be."""

import pytest

from paro.config import ParoError
from sim.estimate.workloads import WORKLOADS, load_workload

#: Layers, width, tokens, TFLOP a layer of self-attention and of linear layers, as published shapes
#: give them.
TABLE = {
    "cogvideox-2b": (30, 1920, 17776, 2.43, 1.57),
    "cogvideox-5b": (42, 3072, 17776, 3.88, 4.03),
    "wan2.1-1.3b-480p": (30, 1536, 32760, 6.59, 2.73),
    "wan2.1-14b-720p": (40, 5120, 75600, 117, 45.2),
    "hunyuanvideo-720p": (60, 3072, 119056, 174, 27),
    "flux.1-dev": (57, 3072, 4608, 0.26, 1.04),
}

TINY = {
    "title": '"tiny"',
    "layers": "2",
    "heads": "3",
    "head_dim": "32",
    "ffn": "64",
    "grid": "[2, 4, 4]",
    "steps": "5",
    "guidance_passes": "2",
}


@pytest.fixture
def model(tmp_path):
    """Write a model; keywords replace its fields (None drops one); gives the path's name."""

    def write(**fields):
        path = tmp_path / "model.toml"
        lines = (f"{k} = {v}" for k, v in (TINY | fields).items() if v is not None)
        path.write_text("\n".join(lines))
        return str(path)

    return write


def test_every_model_is_in_the_table():
    assert set(WORKLOADS) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_models_have_their_published_shapes(name):
    layers, width, tokens, attention, linear = TABLE[name]
    workload = load_workload(name)
    assert (workload.layers, workload.width, workload.tokens) == (layers, width, tokens)
    assert 2 * workload.self_macs / 1e12 == pytest.approx(attention, rel=5e-3)
    assert 2 * workload.linear_macs / 1e12 == pytest.approx(linear, rel=5e-3)


def test_a_model_of_ones_own(model):
    workload = load_workload(model(prefix_tokens="8"))
    assert workload.tokens == 8 + 2 * 4 * 4
    assert workload.passes == 10
    assert workload.attention_macs == 2 * 40 * 40 * 96
    assert workload.linear_macs == 40 * (4 * 96 * 96 + 2 * 96 * 64)
    assert workload.map_bytes == 2 * 2 * 3 * 40 * 40


def test_a_model_with_cross_attention(model):
    plain, crossed = load_workload(model()), load_workload(model(cross_tokens="7"))
    assert crossed.attention_macs - plain.attention_macs == 2 * 32 * 7 * 96
    assert crossed.linear_macs - plain.linear_macs == 32 * 2 * 96 * 96
    assert crossed.map_bytes == plain.map_bytes


@pytest.mark.parametrize(
    ("sentence", "fields"),
    [
        ("layers = 0 is not legal", {"layers": "0"}),
        ("head_dim = 384 is not legal", {"head_dim": "384"}),
        ("grid = [0, 4, 4] is not legal; legal: each 1 or more", {"grid": "[0, 4, 4]"}),
        ("grid.2 is missing", {"grid": "[4, 4]"}),
        ("layers = True is not legal; legal: a valid integer", {"layers": "true"}),
        ("layers = '2' is not legal; legal: a valid integer", {"layers": '"2"'}),
        ("cannot read model ", {"layers": "9" * 5000}),
        ("steps = 0 is not legal", {"steps": "0"}),
        ("no field 'depth'; legal fields: title, layers", {"depth": "3"}),
        ("heads is missing: attention heads of a layer", {"heads": None}),
        ("title = ['2020-01-01'] is not legal; legal: a valid string", {"title": "2020-01-01"}),
        ("grid = [1, 2, 4, 4] is not legal; legal: 3 values", {"grid": "[1, 2, 4, 4]"}),
        ("cross_tokens = -1 is not legal", {"cross_tokens": "-1"}),
        ("2097152 tokens are not legal; legal: up to 1048576", {"grid": "[2, 1024, 1024]"}),
    ],
)
def test_shapes_that_cannot_be_are_refused(model, sentence, fields):
    with pytest.raises(ParoError) as refusal:
        load_workload(model(**fields))
    assert sentence in str(refusal.value)


def test_names_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ParoError, match="there is no model 'sora'; legal: cogvideox-2b, "):
        load_workload("sora")
    with pytest.raises(ParoError, match="cannot read model "):
        load_workload(str(tmp_path / "missing.toml"))
    (tmp_path / "bad.toml").write_text("layers = [")
    with pytest.raises(ParoError, match="cannot read model "):
        load_workload(str(tmp_path / "bad.toml"))

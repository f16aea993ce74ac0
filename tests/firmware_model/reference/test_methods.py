import pytest
import torch

from firmware_model.choices import METHODS
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.methods import Method, in_capture_order
from firmware_model.reference.quantize import dequantize, quantize_head
from paro.config import Config, ParoError

CONFIG = Config(block=16, head_dim=32)


@pytest.fixture
def capture(random_capture):
    return random_capture((3, 4, 5), prefix=2, suffix=5)


def test_rows_come_in_the_order_of_the_capture():
    permutation = torch.tensor([4, 0, 3, 1, 2])
    index, rows = in_capture_order(permutation, range(1, 3), 2, torch.tensor([30, 10, 20]))
    assert index.tolist() == [1, 2, 3]
    assert rows.tolist() == [10, 20, 30]


def test_the_default_is_the_integer_model(capture):
    codes = torch.full((5, 5), 2, dtype=torch.uint8)
    quantized = quantize_head(capture, 1, 4, CONFIG)
    words = dequantize(integer_attention(quantized, codes, CONFIG), quantized)
    index, output = Method().attend(capture, 1, 4, codes, CONFIG)
    assert torch.equal(index, torch.arange(67))
    assert torch.equal(output[capture.permutation(4)], words)


@pytest.mark.parametrize("name", METHODS)
def test_parts_make_up_the_whole(capture, name):
    codes = torch.full((5, 5), 3, dtype=torch.uint8)
    codes[:, 1] = 0
    _, whole = Method(name).attend(capture, 0, 3, codes, CONFIG)
    covered = torch.zeros(67, dtype=torch.bool)
    for rows in (range(2), range(2, 4), range(4, 5)):
        index, part = Method(name).attend(capture, 0, 3, codes, CONFIG, rows)
        assert torch.equal(part, whole[index])
        assert not covered[index].any()
        covered[index] = True
    assert covered.all()


def test_illegal_methods():
    with pytest.raises(ParoError, match="format = 'int2' is not legal; legal: integer, float, di"):
        Method("int2")
    with pytest.raises(ParoError, match="groups = 'row' is not legal with format 'integer'; legal"):
        Method("integer", "row")
    with pytest.raises(ParoError, match="groups = 'row' is not legal with format 'digit', which"):
        Method("digit", "row")
    with pytest.raises(ParoError, match="groups = 'x' is not legal; legal: block, row"):
        Method("paper", "x")  # type: ignore[arg-type]
    assert Method("int8", "row").groups == "row"

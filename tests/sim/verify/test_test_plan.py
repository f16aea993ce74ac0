"""The test plan names tests that exist, and every file of the hardware."""

import ast

import pytest

from paro.config import ParoError
from sim.verify.test_plan import Block, Stage, load_plan, read_results, results
from tests.places import ROOT

PLAN = load_plan()


def named_tests() -> list[str]:
    return [test for block in PLAN for feature in block.feature for test in feature.tests]


def test_every_file_of_the_hardware_is_in_one_block():
    listed = [name for block in PLAN for name in block.modules]
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rtl").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == files


def test_tests_of_the_plan_exist():
    assert len(named_tests()) > 50
    for test in named_tests():
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.parse((ROOT / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        assert functions, test
        assert not name or name in functions, test


def test_each_block_has_a_feature_of_the_first_stage():
    for block in PLAN:
        assert Stage.V1 in {feature.stage for feature in block.feature}, block.name


XML = """<testsuites><testsuite>
<testcase classname="tests.one.test_a" name="test_x[1]"/>
<testcase classname="tests.one.test_a" name="test_x[2]">
<failure message="AssertionError: 3&#10;more"/></testcase>
<testcase classname="tests.one.test_b" name="test_y"><skipped message="no tool"/></testcase>
</testsuite></testsuites>"""


def test_results_of_features(tmp_path):
    path = tmp_path / "tests.xml"
    path.write_text(XML)
    plan = [
        Block(
            name="block",
            modules=[],
            feature=[
                {"name": "x", "stage": "V1", "tests": ["tests/one/test_a.py::test_x"]},
                {"name": "y", "stage": "V2", "tests": ["tests/one/test_b.py"]},
                {"name": "z", "stage": "V2", "tests": ["tests/one/test_a.py::test_z"]},
            ],  # pyright: ignore[reportArgumentType]
        )
    ]
    x, y, z = results(plan, read_results(path))
    assert (x.passed, x.failed, x.skipped, x.holds) == (1, 1, 0, False)
    assert x.failures == ["tests/one/test_a.py::test_x: AssertionError: 3"]
    assert (y.passed, y.skipped, y.holds) == (0, 1, False)
    assert (z.passed, z.holds) == (0, False)


@pytest.mark.parametrize("text", ["", "<a>", "<testsuites/>"])
def test_files_that_are_no_results(text, tmp_path):
    path = tmp_path / "tests.xml"
    path.write_text(text)
    with pytest.raises(ParoError, match=r"tests\.xml"):
        read_results(path)

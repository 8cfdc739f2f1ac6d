"""What the tests share: the model and tokenizer, loaded once, and definitions taken from the notebooks."""

import ast
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from course_utils import chat, loading

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tokenizer():
    return loading.load_tokenizer()


@pytest.fixture(scope="session")
def model():
    """The default model in fp32; tests must not change it."""
    return loading.load_model(precision="fp32", device="cpu")


@pytest.fixture(scope="session")
def examples(tokenizer) -> list[chat.Example]:
    """Eight short encoded dates."""
    rows = loading.load_task("dates", "train")[:8]
    return [chat.encode(chat.question(row["prompt"], row["answer"]), tokenizer) for row in rows]


def notebook_definitions(name: str) -> SimpleNamespace:
    """The imports, functions, classes and capitalized constants of a notebook, without running the rest.

    What a notebook teaches is defined there and nowhere else, so this is how it is tested.
    """
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    scope: dict[str, object] = {}
    for cell in [c for c in notebook.cells if c.cell_type == "code"][1:]:  # the first cell finds the package
        for node in ast.parse(cell.source).body:
            constant = isinstance(node, ast.Assign) and all(
                isinstance(t, ast.Name) and t.id.isupper() for t in node.targets
            )
            if constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                exec(compile(ast.Module([node], []), name, "exec"), scope)
    return SimpleNamespace(**{key: value for key, value in scope.items() if not key.startswith("__")}, scope=scope)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)

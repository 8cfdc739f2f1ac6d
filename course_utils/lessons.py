"""What does a lesson define? Its imports, functions, classes and constants, without running the rest."""

import ast
from types import SimpleNamespace

import nbformat

from course_utils.core.files import notebook


def definitions(name: str) -> SimpleNamespace:
    """The imports, functions, classes and capitalized constants of a notebook, without running the rest.

    And what it takes from another one in this way: `lora = lessons.definitions("01_lora")`.

    What a notebook teaches is defined there and nowhere else: tests, deeper halves and exercises take it from here.

    Raises:
        ValueError: there is no notebook of that name; names those there are.
    """
    scope: dict[str, object] = {}
    cells = nbformat.read(notebook(name), as_version=4).cells
    for cell in [cell for cell in cells if cell.cell_type == "code"][1:]:  # the first one finds the package
        for node in ast.parse(cell.source).body:
            if _constant(node) or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                exec(compile(ast.Module([node], []), name, "exec"), scope)
    return SimpleNamespace(**{key: value for key, value in scope.items() if not key.startswith("__")})


def _constant(node: ast.stmt) -> bool:
    """Whether a statement names a constant, or what is taken from another notebook."""
    if not isinstance(node, ast.Assign) or not all(isinstance(target, ast.Name) for target in node.targets):
        return False
    taken = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "lessons.definitions"
    return taken or all(target.id.isupper() for target in node.targets)

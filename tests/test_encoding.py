"""Whatever the machine's own encoding is: texts are read and written in UTF-8, and every console can be printed on."""

import ast

import pytest

from course_utils.core.files import ROOT

SOURCES = sorted(path for folder in ("course_utils", "tests") for path in (ROOT / folder).rglob("*.py"))


def without_encoding(source: str) -> list[str]:
    """The calls that open a text file in the encoding that this machine prefers (cp1252 on Windows)."""
    calls = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        arguments = [node.value for node in call.args if isinstance(node, ast.Constant)]
        opened = name == "open" and (isinstance(call.func, ast.Name) or bool({"r", "w", "a", "x"} & set(arguments)))
        binary = {"rb", "wb", "ab", "xb", "r+b"} & set(arguments)
        if (opened or name in ("read_text", "write_text")) and not binary:
            calls += [ast.unparse(call)] * ("encoding" not in [keyword.arg for keyword in call.keywords])
    return calls


def test_a_call_without_encoding_is_seen():
    source = "open(p); p.open('a'); p.read_text(); p.write_text('x')\nopen(p, 'rb'); p.open('wb'); study.open()"
    assert len(without_encoding(source)) == 4
    assert without_encoding("open(p, encoding='utf-8'); p.write_text('x', encoding='utf-8')") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_text_file_is_opened_in_a_named_encoding(path):
    assert without_encoding(path.read_text(encoding="utf-8")) == []


COMMANDS = [
    path for path in SOURCES if path.parent.name == "course_utils" and '"__main__"' in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_sees_to_its_console_first(path):
    """In cp1252 a program stops at the first letter that the encoding lacks, in a path for example."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    statements = main.body[1:] if ast.get_docstring(main) else main.body
    assert ast.unparse(statements[0]) == "console.accept_all()"

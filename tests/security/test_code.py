"""What the code never does, whatever it is given: nothing read from a file or the net is run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCES = [path for half in ("service", "model") for path in sorted((PROJECT / half).rglob("*.py"))]
RUNNING_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
RUNNING_BUILTINS = {"eval", "exec", "compile", "__import__"}


def offences(source: str) -> Iterator[str]:
    """The places of `source` that could run what they read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [module] if module else [alias.name for alias in node.names]
            if RUNNING_MODULES & {str(name).partition(".")[0] for name in names}:
                yield f"line {node.lineno}: imports {names}"
        elif isinstance(node, ast.Call) and _is_running(node):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _is_running(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    return (
        name in RUNNING_BUILTINS
        or given.get("allow_pickle", "False") != "False"
        or (name == "torch.load" and given.get("weights_only") != "True")
        or given.get("shell", "False") != "False"
        or given.get("trust_remote_code", "False") != "False"
        or (name.startswith("yaml.") and name.endswith("load") and name != "yaml.safe_load")
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import shelve as s",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_scan_finds_it(source: str) -> None:
    assert len(list(offences(source))) == 1


def test_nothing_read_is_run() -> None:
    assert len(SOURCES) > 80
    found = {
        path.relative_to(PROJECT).as_posix(): list(offences(path.read_text(encoding="utf-8")))
        for path in SOURCES
    }
    assert {name: places for name, places in found.items() if places} == {}

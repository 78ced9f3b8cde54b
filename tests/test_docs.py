"""The documents say what is there."""

import re

from model.training.preparation.prepare import PrepareConfig
from service.settings import Settings
from tests.research_data import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_every_setting_of_the_service_is_in_the_readme() -> None:
    rows = re.findall(r"^\| `(COFINE_\w+)` \|", README, flags=re.MULTILINE)

    assert rows == [f"COFINE_{name.upper()}" for name in Settings.model_fields]


def test_every_module_of_the_model_is_in_the_architecture() -> None:
    named = set(re.findall(r"[a-z_]+", ARCHITECTURE))
    modules = [*(PROJECT / "model").glob("*.py"), *(PROJECT / "model" / "training").iterdir()]
    modules += (PROJECT / "service").iterdir()
    wanted = {path.stem for path in modules if not path.name.startswith(("__", "."))}

    assert sorted(wanted - named) == []


def test_the_settings_in_the_readmes_example_exist() -> None:
    table = README.split("[prepare]")[1].split("```")[0]
    names = re.findall(r"^(\w+) =", table, flags=re.MULTILINE)

    assert names
    assert set(names) <= set(PrepareConfig.model_fields)


def test_no_path_of_a_machine_is_in_the_documents() -> None:
    documents = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
    assert len(documents) > 3
    for path in documents:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![.\w])/(home|root|work|tmp)/", text), path.name

import pytest
import yaml

from hf_maskattn.recipes.recipe import check_local_files, load_recipe
from hf_maskattn.recipes.training_defaults import changed_keys, resolve_recipe, save_recipe

GROUPS = {
    "model": {"task": "text-classification"},
    "data": {"train_file": "train.csv", "tokenizer": "word"},
    "teacher": {"model": "user/teacher"},
}


@pytest.fixture
def read(tmp_path):
    """Writes and loads a recipe with changes of its groups."""

    def read(*overrides, **changes):
        groups = {group: {**GROUPS.get(group, {}), **changes.get(group, {})} for group in {*GROUPS, *changes}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(groups))
        return load_recipe(tmp_path / "recipe.yaml", overrides)

    return read


def test_defaults_are_stored_and_read_again(read, tmp_path):
    recipe = read("teacher.labels={LABEL_0: no, LABEL_1: yes}", "data.augmentation=3")
    save_recipe(recipe, tmp_path / "stored.yaml")
    stored = yaml.safe_load((tmp_path / "stored.yaml").read_text())
    assert stored["teacher"] == {
        "model": "user/teacher",
        "temperature": 3.0,
        "alpha": 0.5,
        "loss": "kl",
        "batch_size": 32,
        "max_length": None,
        "labels": {"LABEL_0": "no", "LABEL_1": "yes"},
    }
    assert stored["data"]["augmentation"] == 3
    again = load_recipe(tmp_path / "stored.yaml")
    assert resolve_recipe(again) == stored
    assert changed_keys(recipe, tmp_path / "stored.yaml") == {}


def test_stored_recipe_without_a_teacher_is_unchanged(tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({group: GROUPS[group] for group in ("model", "data")}))
    recipe = load_recipe(tmp_path / "old.yaml")
    assert recipe.teacher is None
    resolved = resolve_recipe(recipe)
    assert set(resolved) == {"model", "data", "training"}
    assert not {"unlabeled_file", "unlabeled_source", "unlabeled_split", "augmentation"} & set(resolved["data"])


def test_null_model_removes_the_teacher(read):
    assert read("teacher.alpha=0.3", "teacher.model=null").teacher is None
    assert read("teacher.model=null", "teacher.model=user/other").teacher.model == "user/other"
    with pytest.raises(ValueError, match=r"data\.augmentation has no effect"):
        read("teacher.model=null", "data.augmentation=1")
    assert read("teacher.model=null", "data.augmentation=0").teacher is None


@pytest.mark.parametrize(
    ("model", "loss"),
    [({"task": "token-classification"}, "kl"), ({"task": "seq2seq"}, None), ({"problem_type": "regression"}, "mse")],
)
def test_stored_recipes_of_other_tasks_are_read_again(read, tmp_path, model, loss):
    save_recipe(read(model=model), tmp_path / "stored.yaml")
    teacher = load_recipe(tmp_path / "stored.yaml").teacher
    assert (teacher.model, teacher.loss) == ("user/teacher", loss)


def test_teacher_is_a_changed_key(read, tmp_path):
    save_recipe(read(), tmp_path / "stored.yaml")
    (tmp_path / "teacher").mkdir()
    changes = changed_keys(read(f"teacher.model={tmp_path / 'teacher'}"), tmp_path / "stored.yaml")
    assert changes == {"teacher.model": ("user/teacher", str(tmp_path / "teacher"))}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({group: GROUPS[group] for group in ("model", "data")}))
    assert "teacher.model" in changed_keys(load_recipe(tmp_path / "old.yaml"), tmp_path / "stored.yaml")


def test_missing_file_of_unlabeled_texts_raises(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(FileNotFoundError, match=r"data.unlabeled_file must be an existing file or pattern, got 'more.csv'"):
        check_local_files(read("data.unlabeled_file=more.csv", "data.test_split="))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.temperature=0"], "teacher.temperature must be greater than 0, got 0."),
        (["teacher.alpha=0"], "teacher.alpha must be in (0, 1], got 0. Remove the group `teacher`"),
        (["teacher.alpha=1.5"], "teacher.alpha must be in (0, 1], got 1.5."),
        (["teacher.labels={a: 1}"], "teacher.labels must be a mapping of strings to strings or null, got {'a': 1}."),
        (["teacher.loss=l1"], "teacher.loss must be one of 'kl', 'mse' or null, got 'l1'."),
        (["teacher.batch_size=0"], "teacher.batch_size must be at least 1, got 0."),
        (["teacher.max_length=0"], "teacher.max_length must be at least 1, got 0."),
        (["teacher.modle=x"], "teacher.modle does not exist. Did you mean teacher.model?"),
        (["data.augmentation=-1"], "data.augmentation must be at least 0, got -1."),
        (["data.unlabeled_split=train"], "data.unlabeled_split has no effect without data.unlabeled_source."),
        (["model.task=fill-mask"], "teacher.model is not supported with model.task=fill-mask."),
        (["data.unlabeled_file=a.csv", "data.unlabeled_source=b"], "are mutually exclusive"),
        (["data.streaming=true", "training.max_steps=1"], "is not supported with data.streaming=true"),
        (["teacher.loss=mse", "teacher.temperature=2"], "teacher.temperature=2 has no effect with the loss mse"),
        (["model.problem_type=regression", "teacher.loss=kl"], "teacher.loss=kl is not supported with"),
        (["model.problem_type=regression", "teacher.temperature=2"], "has no effect with the loss mse"),
        (["model.task=seq2seq", "teacher.alpha=0.3"], "teacher.alpha has no effect with text-to-text generation"),
        (["model.task=seq2seq", "data.augmentation=1"], "data.augmentation has no effect with model.task=seq2seq"),
    ],
)
def test_invalid_fields_and_contradictions_raise(read, overrides, message):
    with pytest.raises((ValueError, TypeError)) as raised:
        read(*overrides)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.augmentation=1", "data.augmentation has no effect without a teacher .* Set teacher.model"),
        ("teacher.alpha=0.3", "teacher.model is missing. Set it to a fine-tuned model"),
    ],
)
def test_missing_teacher_raises(tmp_path, override, message):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"model": GROUPS["model"], "data": GROUPS["data"]}))
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "recipe.yaml", [override])

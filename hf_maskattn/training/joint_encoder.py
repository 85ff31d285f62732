"""How joint classification reads columns and collects labels: tags as for token classification, and a label of the text."""

from hf_maskattn.data.columns import label_names
from hf_maskattn.data.loading import Splits
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.task_encoders import TagEncoder


class JointEncoder(TagEncoder):
    """Joint classification: words and tags as for token classification, and a label of the text."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.tags_column = recipe.data.tags_column
        self.known_tags = recipe.data.tags

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns with names of labels: those of tags, and that of the labels of texts."""
        return self.tags_column, self.recipe.label_column

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        columns = super().required_columns()
        return {**columns, self.tags_column: "data.tags_column", self.recipe.label_column: "data.label_column"}

    def learn_labels(self, splits: Splits, *, as_tagged: bool = False) -> None:
        """Collect the tags, as for token classification, and the labels of a new model."""
        super().learn_labels(splits, as_tagged=as_tagged)
        column, known = self.recipe.label_column, self.recipe.data.labels
        self.sequence_labels = label_names(splits, column, "single", known=known, locations=splits.locations)

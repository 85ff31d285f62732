"""The model card of a run, with a picture of attention where one can be drawn."""

import logging
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_pt_utils import get_model_param_count

from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.checkpoints.run_folder import CARD_FILE, PICTURE_FILE
from hf_maskattn.data.files import DICTIONARY_SUFFIX
from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.hub.model_card import MAX_EXAMPLES, TrainingData, build_model_card
from hf_maskattn.inspection.attention_maps import attention_maps
from hf_maskattn.inspection.plots import can_be_drawn, draw_alignments, draw_attention_maps
from hf_maskattn.inspection.text_generation import write_texts
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.assembly import Assembly

logger = logging.getLogger(__name__)

_MOST_TOKENS = 30


def write_card(assembly: Assembly, recipe: Recipe, folder: Path, metrics: dict[str, dict[str, float]]) -> None:
    """Write `README.md` and, if matplotlib is installed, `attention.png` to the folder of a run.

    Args:
        assembly: The Trainer and its data.
        recipe: The recipe.
        folder: The output folder.
        metrics: Values by metric name, by split.
    """
    trainer, data = assembly.trainer, assembly.data
    texts = [text for text in data.examples if text.strip()]
    # A forward of a model that is cut in pieces needs all processes.
    is_whole = not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    drawn = is_whole and draw_picture(trainer.model, data.tokenizer, texts, folder / PICTURE_FILE)
    if recipe.model.task == "fill-mask":
        texts = [_with_a_mask(text, data.tokenizer.mask_token) for text in texts]
    pretrained = recipe.model.pretrained
    card = build_model_card(
        name=folder.resolve().name,
        config=trainer.model.config,
        num_parameters=get_model_param_count(trainer.model),
        task=recipe.model.task,
        data=_training_data(assembly, recipe),
        metrics={split: values for split, values in metrics.items() if split != "train"},
        metric_names=assembly.evaluation.metric_names,
        base_model=pretrained and name_of(pretrained),
        base_model_id=pretrained and hub_id_of(pretrained),
        examples=texts,
        picture=PICTURE_FILE if drawn else None,
    )
    write_atomically(folder / CARD_FILE, str(card))


def hub_id_of(source: str) -> str | None:
    """Tell what a model or dataset is called on the Hub; None if it is not from there."""
    path = Path(source)
    is_elsewhere = source in BUILT_IN or path.exists() or path.suffix.lower() == DICTIONARY_SUFFIX
    return None if is_elsewhere else source


def name_of(source: str) -> str:
    """Name a model or dataset for people who read the card, without where it lies on this machine."""
    if source in BUILT_IN:
        return source
    return hub_id_of(source) or Path(source).resolve().name


def draw_picture(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], path: Path) -> bool:
    """Draw the attention over the first few texts for which the font has all signs, of texts that are written too.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        texts: The texts, cut where they are long.
        path: The file to write.

    Returns:
        Whether there is a picture: not if matplotlib is missing, or nothing can be drawn.
    """
    try:
        shortened = [text for text in (_first_tokens(tokenizer, text) for text in texts) if text and can_be_drawn(text)]
        shown = shortened[:MAX_EXAMPLES]
        if not shown:
            return False
        if model.config.is_encoder_decoder:
            written = write_texts(model, tokenizer, shown, batch_size=len(shown), with_alignment=True)
            draw_alignments([text.alignment for text in written if text.alignment is not None], path)
        else:
            draw_attention_maps({"attention": attention_maps(model, tokenizer, shown)}, path)
    except ImportError as error:
        logger.info(f"The model card has no picture of attention: {error}")
        return False
    except Exception as error:  # a run is not lost for a picture
        logger.warning(f"The model card has no picture of attention, drawing it failed: {error!r}")
        return False
    return True


def _first_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    encoded = tokenizer(text, truncation=True, max_length=_MOST_TOKENS, return_offsets_mapping=True)
    return text[: max((end for _, end in encoded["offset_mapping"]), default=0)]


def _with_a_mask(text: str, mask_token: str) -> str:
    words = text.split()
    words[len(words) // 2] = mask_token
    return " ".join(words)


def _training_data(assembly: Assembly, recipe: Recipe) -> TrainingData:
    data, about = recipe.data, assembly.data.about
    return TrainingData(
        name=name_of(data.source) if data.source else Path(str(data.train_file)).name,
        hub_id=data.source and hub_id_of(data.source),
        description=about.description,
        license=about.license,
        homepage=about.homepage,
        rows={name: None if isinstance(split, RowStream) else split.num_rows for name, split in assembly.data.splits.items()},
    )

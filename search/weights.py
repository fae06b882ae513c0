"""Loads a causal language model whole, or says in one line why not."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from treeward.search.errors import BadInput
from treeward.search.quiet import quiet_loading

NO_MODEL = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What transformers raises for a folder that it cannot make a model of."""


def said(error: BaseException) -> str:
    """Returns what an error of transformers' says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def load_whole(folder: Path, **how: Any) -> PreTrainedModel:
    """Returns the model of a Hugging Face folder, with no weight made up and no code of it run.

    Args:
        folder: Configuration and weights in safetensors.
        how: What `from_pretrained` is told beside, such as `dtype`.

    Raises:
        BadInput: It holds no such model, or not all of its weights.
    """
    factory: Any = AutoModelForCausalLM
    try:
        with quiet_loading():
            model, loaded = factory.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # They are refused below, by name.
                **how,
            )
    except (*NO_MODEL, SafetensorError) as e:
        raise BadInput(f"{folder}: no model that transformers can load: {said(e)}") from e
    lacking = sorted(loaded["missing_keys"])
    if lacking:
        names = ", ".join(lacking[:3])
        raise BadInput(f"{folder}: the weights lack {names}; fetch or save the model again")
    if more := sorted(loaded["unexpected_keys"]):
        raise BadInput(
            f"{folder}: config.json has no place for {', '.join(more[:3])} of the weights; fetch "
            "or save the model again"
        )
    for name, there, wanted in sorted(loaded["mismatched_keys"]):
        raise BadInput(
            f"{folder}: {name} is {[*there]} in the weights and {[*wanted]} by config.json; fetch "
            "or save the model again"
        )
    assert isinstance(model, PreTrainedModel)
    return model

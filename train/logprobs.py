"""Log-probabilities of sampled tokens, without ever holding the logits of all of them.

B  groups of a pass      T  places      N  tokens of completions      E  width      V  vocabulary
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from treeward.search.errors import BadInput
from treeward.train.groups import Group, Layout, lay_out
from treeward.train.settings import Dtype


def token_logprobs(
    model: PreTrainedModel, layout: Layout, *, temperature: float, chunk: int, dtype: Dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each token's log-probability (N) and the entropy (N) where it was drawn, in nats.

    Both are those of the distribution that is sampled from: logits divided by the temperature. The
    head computes in float32, `chunk` tokens at a time, and once more on the way back.

    Args:
        model: A causal language model.
        layout: Its inputs.
        temperature: Divides the logits.
        chunk: Tokens whose logits are held at once.
        dtype: What the decoder computes in. The entropy has no gradient.
    """
    layout = layout.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype is Dtype.BFLOAT16):
        hidden_NE = hidden_states(model, layout)
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]

    def of_chunk(hidden_CE: torch.Tensor, targets_C: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logprobs_CV = (head(hidden_CE.float()).float() / temperature).log_softmax(-1)
        with torch.no_grad():
            entropies_C = -(logprobs_CV.exp() * logprobs_CV).sum(-1)
        return logprobs_CV.gather(-1, targets_C[:, None])[:, 0], entropies_C

    parts = [
        checkpoint(of_chunk, hidden_CE, targets_C, use_reentrant=False, preserve_rng_state=False)
        for hidden_CE, targets_C in zip(
            torch.split(hidden_NE, chunk), torch.split(layout.targets_N, chunk), strict=True
        )
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([e for _, e in parts])


def hidden_states(model: PreTrainedModel, layout: Layout) -> torch.Tensor:
    """Returns the decoder's outputs (N, E) at the places that predict the completions' tokens."""
    decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    output = decoder(
        input_ids=layout.input_ids_BT,
        attention_mask=layout.visible_B1TT,
        position_ids=layout.position_ids_BT,
        use_cache=False,
    )
    hidden_NE: torch.Tensor = output.last_hidden_state[layout.rows_N, layout.places_N]
    return hidden_NE


@torch.no_grad()
def check_groups(model: PreTrainedModel) -> None:
    """Tries out that completions of a group do not see each other.

    Raises:
        BadInput: They do, so this architecture cannot be trained on shared prompts.
    """
    training = model.training
    model.train(False)
    first, second, third, *rest = (token % model.config.vocab_size for token in range(1, 9))
    prompt, some = (first, second, third), (tuple(rest[:3]), tuple(rest[3:]))
    groups = [[Group(prompt_ids=prompt, completions=some)]]
    groups += [[Group(prompt_ids=prompt, completions=(each,))] for each in some]
    try:
        together, *apart = (hidden_states(model, lay_out(g).to(model.device)) for g in groups)
    except (RuntimeError, TypeError, ValueError) as e:
        raise BadInput(
            f"model type {model.config.model_type!r} takes no mask of its own ({e}); "
            "train a decoder with attention"
        ) from e
    finally:
        model.train(training)
    if float((together - torch.cat(apart)).abs().max()) > 1e-3 * float(together.abs().max()):
        raise BadInput(
            f"model type {model.config.model_type!r} mixes the completions of a group; "
            "train a decoder whose attention takes a mask of its own"
        )

"""Choosing a model where the caller names none."""

from __future__ import annotations

from collections.abc import Sequence

from overpaint_common.errors import BrokerUnavailable, UnknownModel
from overpaint_common.live import Live
from overpaint_common.passes import MatchColor
from overpaint_producer.compose import PassLike, model_of, on_model, operation

MATCH_COLOR: str = MatchColor.model_fields["op"].default


def look_up(live: Live, passes: Sequence[PassLike], option: str) -> tuple[str, list[PassLike]]:
    """The job's model, and the passes, of which those name one that the job's does not serve."""
    named = next((name for p in passes if (name := model_of(p))), None)
    # A pass such as match_color runs on no model, and any will do for it.
    ops = [op for op in dict.fromkeys(operation(p) for p in passes if not model_of(p)) if op != MATCH_COLOR]
    if named is not None and not ops:
        return named, list(passes)
    model = only_model(live, ops[0] if ops else MATCH_COLOR, option)
    card = live.models().get(model)
    served = ops if card is None else card.operations
    others = {op: only_model(live, op, option) for op in ops if op not in served}
    found = [on_model(p, others[op]) if (op := operation(p)) in others and not model_of(p) else p for p in passes]
    return model, found


def only_model(live: Live, op: str, option: str) -> str:
    """See `Producer.only_model`."""
    try:
        served = {model for worker in live.workers() for model in worker.models}
        cards = live.models()
        names = sorted(name for name, card in cards.items() if op in card.operations and name in (served or cards))
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"nothing was accepted: name a model with {option}, or wait until the workers can be asked; {error}"
        ) from error
    if len(names) != 1:
        known = ", ".join(names) or "none yet; start a worker"
        raise UnknownModel(f"name a model with {option}: the fleet has {known}")
    return names[0]

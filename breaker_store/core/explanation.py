"""Why a breaker is, or was, as it is: from the facts to one plain sentence, a verdict and an advice.

What is explained is a transition. Most belong to a trip: from the opening on, through probes, to the ending. A trip is
explained by the failures that it keeps itself, so that what opened it, and whose trouble it looks like, is told the same
when retention has dropped the outcomes; what then can't be told any more is said to be gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from breaker_store.core.facts import Facts
from breaker_store.core.fleet_verdict import CHECK_THE_BOT, MEND_THE_BOT, FleetVerdict, Judgement, judge
from breaker_store.core.recurrence import Recurrence, recur
from breaker_store.core.sentence import compose


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to say of the facts; `judgement` is None where there is no trip to judge."""

    sentence: str
    judgement: Judgement | None
    recurrence: Recurrence


def explain(facts: Facts) -> Explanation:
    recurrence = recur(facts.steps, _counted_up_to(facts), is_cut=facts.steps_are_cut)
    judgement = _judgement(facts)
    return Explanation(compose(facts, recurrence, judgement), judgement, recurrence)


def _counted_up_to(facts: Facts) -> int:
    return facts.now if facts.is_latest or facts.event is None else facts.event.at


def _judgement(facts: Facts) -> Judgement | None:
    if facts.trip is None or facts.around is None:
        return None
    judgement = judge(facts.trip.causes, facts.around)
    if facts.aftermath.ending is not None:
        return replace(judgement, advice=_advice_after(judgement))
    if facts.trip.opened_at_once and judgement.verdict is FleetVerdict.THIS_BOT:
        return replace(judgement, advice=MEND_THE_BOT)
    return judgement


def _advice_after(judgement: Judgement) -> str:
    """Give the advice once a trip has ended."""
    if judgement.verdict is FleetVerdict.EVERYBODY:
        return "it is over, so nothing is left to do"
    return f"it is over; should it come back, {CHECK_THE_BOT}"
